//! What two sequences have in common, and what an edit of one comes to in the other.

/// Pairs of elements that are compared. What differs by more is taken to have nothing in common.
const MAX_COMPARED: usize = 4_000_000;

/// For each element of `a` the one of `b` that it is, in ascending order.
pub(crate) fn align<T: PartialEq>(a: &[T], b: &[T]) -> Vec<Option<usize>> {
    let front = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let back = a[front..].iter().rev().zip(b[front..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (middle_a, middle_b) = (&a[front..a.len() - back], &b[front..b.len() - back]);
    let mut aligned: Vec<Option<usize>> = (0..front).map(Some).collect();
    aligned.extend(common(middle_a, middle_b).into_iter().map(|at| at.map(|at| front + at)));
    aligned.extend((b.len() - back..b.len()).map(Some));
    aligned
}

/// A longest common subsequence.
fn common<T: PartialEq>(a: &[T], b: &[T]) -> Vec<Option<usize>> {
    let mut aligned = vec![None; a.len()];
    if a.is_empty() || b.is_empty() || a.len().saturating_mul(b.len()) > MAX_COMPARED {
        return aligned;
    }
    // How much the ends from here on have in common.
    let width = b.len() + 1;
    let mut longest = vec![0u32; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i * width + j] = match a[i] == b[j] {
                true => longest[(i + 1) * width + j + 1] + 1,
                false => longest[(i + 1) * width + j].max(longest[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            aligned[i] = Some(j);
            (i, j) = (i + 1, j + 1);
        } else if longest[(i + 1) * width + j] >= longest[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    aligned
}

/// One step of an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The element at `at`, which was `from`, becomes `to`.
    Replace { at: usize, from: usize, to: usize },
    /// The element at `at` goes.
    Delete { at: usize },
    /// New elements, from `from` to before `to`, come before the one at `at`.
    Insert { at: usize, from: usize, to: usize },
}

/// The steps that do to `current` what makes `target` of `base`, from the last place to the first: so each place is
/// right when its turn comes. What is in `current` alone stays.
pub(crate) fn steps<T: PartialEq>(base: &[T], target: &[T], current: &[T]) -> Vec<Step> {
    let kept = align(base, target);
    let here = align(base, current);
    // Where something before the base's element `i` goes.
    let place = |i: usize| match here.get(i) {
        Some(Some(at)) => *at,
        _ => here[..i].iter().rev().flatten().next().map_or(0, |at| at + 1),
    };
    let (mut steps, mut gone, mut next) = (Vec::new(), Vec::new(), 0);
    for i in 0..=base.len() {
        let until = match kept.get(i) {
            Some(None) => {
                gone.push(i);
                continue;
            }
            Some(Some(at)) => *at,
            None => target.len(),
        };
        for i in gone.drain(..) {
            match here[i] {
                Some(at) if next < until => {
                    steps.push(Step::Replace { at, from: i, to: next });
                    next += 1;
                }
                Some(at) => steps.push(Step::Delete { at }),
                None => {}
            }
        }
        if next < until {
            steps.push(Step::Insert { at: place(i), from: next, to: until });
        }
        next = until + 1;
    }
    steps.reverse();
    steps
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn done(base: &[u8], target: &[u8], current: &[u8]) -> Vec<u8> {
        let mut result = current.to_vec();
        for step in steps(base, target, current) {
            match step {
                Step::Replace { at, to, .. } => result[at] = target[to],
                Step::Delete { at } => {
                    result.remove(at);
                }
                Step::Insert { at, from, to } => {
                    result.splice(at..at, target[from..to].iter().copied());
                }
            }
        }
        result
    }

    proptest! {
        #[test]
        fn what_was_the_same_becomes_the_same(base in vec(0u8..4, 0..20), target in vec(0u8..4, 0..20)) {
            prop_assert_eq!(done(&base, &target, &base), target);
        }

        #[test]
        fn what_is_there_alone_stays(base in vec(0u8..4, 0..20), at in 0usize..20, target in vec(0u8..4, 0..20)) {
            let mut current = base.clone();
            current.insert(at.min(base.len()), 9);
            let mut result = done(&base, &target, &current);
            prop_assert_eq!(result.iter().filter(|element| **element == 9).count(), 1);
            result.retain(|element| *element != 9);
            prop_assert_eq!(result, target);
        }
    }

    #[test]
    fn an_edit_finds_its_place_in_another_order() {
        let merged = done(b"one AB two", b"one AxB two!", b"one BA two");
        assert_eq!(merged.iter().filter(|byte| **byte == b'x').count(), 1);
        assert!(merged.ends_with(b" two!"));
    }
}
