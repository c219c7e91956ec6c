//! What must be done for one segment, given who holds what of it. Pure.
//!
//! Shards are not bound to members: any distribution that keeps the promise of [`crate::place`] is as good as any
//! other, so what is there stays where it is. A member that comes takes over what others have more of than their
//! share; what is lost is made anew. So the bytes that move are those that must.

use crate::code::MAX_SHARDS;
use crate::index_set::IndexSet;
use crate::place::{loads, survives};

/// The work on one segment. Members are named by their position in the order of [`crate::place::order`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mend {
    /// Shards that go from one member to another.
    pub(crate) moves: Vec<Move>,
    /// Shards to be made anew, and for whom.
    pub(crate) makes: Vec<(usize, IndexSet)>,
    /// Shards that somebody else holds as well.
    pub(crate) drops: Vec<(usize, IndexSet)>,
    /// Shards beyond what the promise needs, such as those that both halves of a partition made.
    pub(crate) trims: Vec<(usize, IndexSet)>,
}

/// Shards that go from one member to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) shards: IndexSet,
}

/// How a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    /// Every half of the members may vanish.
    pub(crate) is_durable: bool,
    /// Different shards that there are beyond those needed to decode; negative if the segment cannot be decoded.
    pub(crate) margin: i32,
}

impl Mend {
    pub(crate) fn is_empty(&self) -> bool {
        [&self.makes, &self.drops, &self.trims].iter().all(|steps| steps.is_empty()) && self.moves.is_empty()
    }
}

/// How the segment is with these holdings, of all members in order.
pub(crate) fn health(k: u16, held: &[IndexSet]) -> Health {
    let owned = owned(k, held);
    let all = owned.iter().map(IndexSet::len).sum::<usize>();
    Health { is_durable: survives(k, &lengths(&owned), held.len() / 2), margin: all as i32 - i32::from(k) }
}

/// What to do about the segment with these holdings, of all members in order.
pub(crate) fn mend(k: u16, held: &[IndexSet]) -> Mend {
    let mut owned = owned(k, held);
    let mut mend = Mend::default();
    for (position, (held, owned)) in held.iter().zip(&owned).enumerate() {
        let surplus = held.minus(owned);
        if !surplus.is_empty() {
            mend.drops.push((position, surplus));
        }
    }
    let shares = loads(k, held.len());
    mend.trims = trim(k, &mut owned, &shares);
    let mut levelled = owned.clone();
    mend.moves = level(k, &mut levelled, &shares);
    if !survives(k, &lengths(&levelled), held.len() / 2) {
        // Moving alone does not do. What must be made goes to those who have the least, and spares them moves.
        mend.makes = make(&mut owned, &shares);
        mend.moves = level(k, &mut owned, &shares);
    }
    mend
}

/// Each shard with one owner, so that all own about as many: of several who hold it one with the fewest others. With `k` = 1
/// all shards are alike, so each holder owns one.
pub(crate) fn owned(k: u16, held: &[IndexSet]) -> Vec<IndexSet> {
    if k == 1 {
        return held.iter().map(|held| held.first(1)).collect();
    }
    let mut owned = held.to_vec();
    let mut seen = IndexSet::default();
    let mut shared = IndexSet::default();
    for held in held {
        shared = shared.union(&seen.intersection(held));
        seen = seen.union(held);
    }
    for index in shared.iter() {
        let holders = || (0..owned.len()).filter(|position| owned[*position].contains(index));
        let keeper = holders().min_by_key(|position| (owned[*position].len(), *position));
        let others: Vec<usize> = holders().filter(|position| Some(*position) != keeper).collect();
        others.into_iter().for_each(|position| owned[position].remove(index));
    }
    while even_out(held, &mut owned, &shared) {}
    owned
}

/// Gives what several hold to those of them who own fewer, as far as one step each does it; says whether it did anything. Without
/// it a shard could be moved to somebody who holds it already, time and again.
fn even_out(held: &[IndexSet], owned: &mut [IndexSet], shared: &IndexSet) -> bool {
    let mut has_moved = false;
    for index in shared.iter() {
        let holders = (0..held.len()).filter(|position| held[*position].contains(index));
        let least = holders.min_by_key(|position| (owned[*position].len(), *position));
        let owner = (0..owned.len()).find(|position| owned[*position].contains(index));
        if let (Some(least), Some(owner)) = (least, owner)
            && owned[least].len() + 1 < owned[owner].len()
        {
            owned[owner].remove(index);
            owned[least].insert(index);
            has_moved = true;
        }
    }
    has_moved
}

/// Moves shards from those who have the most to those who have less than the least share; and further, one by one,
/// while only that keeps the promise.
fn level(k: u16, owned: &mut [IndexSet], shares: &[u16]) -> Vec<Move> {
    let Some(floor) = shares.iter().min().map(|share| usize::from(*share)) else { return Vec::new() };
    let mut moves = Vec::new();
    for to in 0..owned.len() {
        while owned[to].len() < floor {
            let Some(from) = fullest(owned).filter(|from| owned[*from].len() > floor) else { break };
            let next = owned.iter().map(IndexSet::len).filter(|len| *len < owned[from].len()).max();
            // Down to where the next one is, so that all give alike.
            let spare = owned[from].len() - next.unwrap_or(floor).max(floor);
            let n = spare.min(floor - owned[to].len());
            hand_over(owned, from, to, n, &mut moves);
        }
    }
    while !survives(k, &lengths(owned), owned.len() / 2) {
        let (Some(from), Some(to)) = (fullest(owned), emptiest(owned)) else { break };
        if owned[from].len() < owned[to].len() + 2 {
            break;
        }
        hand_over(owned, from, to, 1, &mut moves);
    }
    moves
}

fn hand_over(owned: &mut [IndexSet], from: usize, to: usize, n: usize, moves: &mut Vec<Move>) {
    // The highest numbers go: data shards are of more use where they have been.
    let kept = owned[from].first(owned[from].len() - n);
    let moved = owned[from].minus(&kept);
    owned[from] = kept;
    owned[to] = owned[to].union(&moved);
    match moves.iter_mut().find(|step| (step.from, step.to) == (from, to)) {
        Some(step) => step.shards = step.shards.union(&moved),
        None => moves.push(Move { from, to, shards: moved }),
    }
}

fn emptiest(owned: &[IndexSet]) -> Option<usize> {
    (0..owned.len()).min_by_key(|position| owned[*position].len())
}

fn fullest(owned: &[IndexSet]) -> Option<usize> {
    (0..owned.len()).max_by_key(|position| owned[*position].len())
}

/// Drops shards of those who have more than the largest share, while there are more than the promise needs.
fn trim(k: u16, owned: &mut [IndexSet], shares: &[u16]) -> Vec<(usize, IndexSet)> {
    let needed: usize = shares.iter().map(|share| usize::from(*share)).sum();
    let ceiling = shares.iter().max().map_or(0, |share| usize::from(*share));
    let mut total: usize = owned.iter().map(IndexSet::len).sum();
    let mut trims = Vec::new();
    while total > needed {
        let Some(fullest) = fullest(owned).filter(|position| owned[*position].len() > ceiling) else { break };
        let n = (total - needed).min(owned[fullest].len() - ceiling);
        let kept = owned[fullest].first(owned[fullest].len() - n);
        trims.push((fullest, owned[fullest].minus(&kept)));
        owned[fullest] = kept;
        total -= n;
    }
    if k == 1 { Vec::new() } else { trims }
}

/// Has as many shards made as are missing in all, for those who have the least. All of them: to stop when the promise
/// just holds would mean to come back soon.
fn make(owned: &mut [IndexSet], shares: &[u16]) -> Vec<(usize, IndexSet)> {
    let taken = owned.iter().fold(IndexSet::default(), |all, owned| all.union(owned));
    let mut free = (0..MAX_SHARDS).filter(move |index| !taken.contains(*index));
    let mut made = vec![IndexSet::default(); owned.len()];
    let mut wanting: Vec<usize> = (0..owned.len()).collect();
    wanting.sort_by_key(|position| (owned[*position].len(), *position));
    let total = |sets: &[IndexSet]| sets.iter().map(IndexSet::len).sum::<usize>();
    let mut missing =
        shares.iter().map(|share| usize::from(*share)).sum::<usize>().saturating_sub(total(owned));
    for position in wanting {
        while missing > 0 && owned[position].len() < usize::from(shares[position]) {
            let Some(index) = free.next() else { break };
            owned[position].insert(index);
            made[position].insert(index);
            missing -= 1;
        }
    }
    made.into_iter().enumerate().filter(|(_, shards)| !shards.is_empty()).collect()
}

fn lengths(owned: &[IndexSet]) -> Vec<u16> {
    owned.iter().map(|owned| owned.len() as u16).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::code::MAX_DATA;

    /// Everybody's share, as a writer places it.
    fn placed(k: u16, members: usize) -> Vec<IndexSet> {
        let mut next = 0;
        loads(k, members)
            .into_iter()
            .map(|load| {
                let start = next;
                next += load;
                IndexSet::range(start..next)
            })
            .collect()
    }

    fn apply(held: &mut [IndexSet], mend: &Mend) {
        for (position, shards) in mend.drops.iter().chain(&mend.trims) {
            held[*position] = held[*position].minus(shards);
        }
        for Move { from, to, shards } in &mend.moves {
            assert_eq!(held[*from].intersection(shards), *shards, "only what is held can move");
            held[*from] = held[*from].minus(shards);
            held[*to] = held[*to].union(shards);
        }
        for (position, shards) in &mend.makes {
            held[*position] = held[*position].union(shards);
        }
    }

    fn moved(mend: &Mend) -> usize {
        let moves = mend.moves.iter().map(|step| step.shards.len());
        let makes = mend.makes.iter().map(|(_, shards)| shards.len());
        moves.chain(makes).sum()
    }

    #[test]
    fn what_was_placed_is_durable_and_needs_nothing() {
        for members in 1..=64 {
            for k in [1, 2, 3, 50, MAX_DATA] {
                let held = placed(k, members);
                assert!(health(k, &held).is_durable);
                assert!(mend(k, &held).is_empty(), "{members} members, k = {k}");
            }
        }
    }

    #[test]
    fn growing_one_by_one_stays_durable_and_moves_only_the_newcomers_share() {
        for k in [1, 2, 10, 60, MAX_DATA] {
            let mut held = placed(k, 1);
            for members in 2..=64 {
                held.push(IndexSet::default());
                let work = mend(k, &held);
                let share = usize::from(*loads(k, members).iter().max().unwrap());
                let must = share.max(
                    held.iter()
                        .map(IndexSet::len)
                        .sum::<usize>()
                        .abs_diff(loads(k, members).iter().map(|load| usize::from(*load)).sum::<usize>()),
                );
                assert!(
                    moved(&work) <= must * 3 / 2,
                    "{members} members, k = {k}: {} of {must}",
                    moved(&work)
                );
                apply(&mut held, &work);
                assert!(health(k, &held).is_durable, "{members} members, k = {k}");
                assert!(mend(k, &held).is_empty(), "{members} members, k = {k}: {:?}", mend(k, &held));
            }
        }
    }

    #[test]
    fn after_the_loss_of_half_the_rest_becomes_durable_again() {
        for members in 2..=64 {
            for k in [1, 5, MAX_DATA] {
                let mut held = placed(k, members);
                held.drain(..members / 2);
                assert!(health(k, &held).margin >= 0);
                let work = mend(k, &held);
                apply(&mut held, &work);
                assert!(health(k, &held).is_durable, "{members} members, k = {k}");
                assert!(mend(k, &held).is_empty());
            }
        }
    }

    #[test]
    fn one_loss_among_many_waits_for_a_margin() {
        // Five hold 96 each; four with 96 still survive the loss of any two.
        let mut held = placed(MAX_DATA, 5);
        held.remove(0);
        assert_eq!(mend(MAX_DATA, &held).makes.len(), 4, "2 × 96 are not enough");
        let mut held = placed(MAX_DATA, 6);
        held.remove(0);
        assert!(mend(MAX_DATA, &held).is_empty(), "3 × 80 are");
    }

    proptest! {
        /// A writer gives what is to be made or moved, and nobody drops anything meanwhile.
        #[test]
        fn who_only_gives_comes_to_an_end_whatever_is_held_twice(
            k in prop_oneof![Just(2u16), Just(3), Just(10), Just(60)],
            holdings in proptest::collection::vec(proptest::collection::vec(0u16..480, 0..130), 1..9),
        ) {
            let shards = |indices: Vec<u16>| {
                indices.into_iter().fold(IndexSet::default(), |mut all, index| {
                    all.insert(index % (2 * k + 4));
                    all
                })
            };
            let mut held: Vec<IndexSet> = holdings.into_iter().map(shards).collect();
            for _ in 0..20 {
                if health(k, &held).is_durable {
                    return Ok(());
                }
                let before = held.clone();
                let work = mend(k, &held);
                for Move { to, shards, .. } in &work.moves {
                    held[*to] = held[*to].union(shards);
                }
                for (to, shards) in &work.makes {
                    held[*to] = held[*to].union(shards);
                }
                prop_assert_ne!(before, held.clone(), "nothing new is given");
            }
            prop_assert!(false, "no end");
        }
    }

    #[test]
    fn what_two_hold_counts_once_and_is_dropped_by_one() {
        let held = [IndexSet::range(0..240), IndexSet::range(0..240)];
        assert!(!health(MAX_DATA, &held).is_durable);
        let work = mend(MAX_DATA, &held);
        let mut after = held.to_vec();
        apply(&mut after, &work);
        assert!(health(MAX_DATA, &after).is_durable);
        assert_eq!(after.iter().map(IndexSet::len).sum::<usize>(), 480);
    }

    /// Up to 200 members that come, leave in order, and vanish, up to half of them between two mendings.
    #[test]
    fn no_segment_is_lost_in_a_swarm_that_never_rests() {
        use rand::rngs::StdRng;
        use rand::{Rng, SeedableRng};

        for seed in 0..4 {
            let mut chance = StdRng::seed_from_u64(seed);
            let k = [1, 7, 60, MAX_DATA][seed as usize];
            let mut held = placed(k, 24);
            for step in 0..300 {
                // Above 64 members the promise is that of a random half, which these are.
                let n = held.len();
                let lost = chance.random_range(0..=n / 2).min(n - 1);
                for _ in 0..if step % 3 == 0 { lost } else { lost.min(2) } {
                    held.swap_remove(chance.random_range(0..held.len()));
                }
                assert!(
                    health(k, &held).margin >= 0,
                    "seed {seed}, step {step}: lost with {} members",
                    held.len()
                );
                let come = chance.random_range(0..=40usize).min(200 - held.len());
                held.extend(std::iter::repeat_n(IndexSet::default(), come));
                let work = mend(k, &held);
                apply(&mut held, &work);
                assert!(health(k, &held).is_durable || held.len() > crate::place::CERTAIN);
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_is_held_it_becomes_durable_in_one_step_and_costs_no_more_than_it_should(
            k in prop_oneof![1u16..10, 1u16..=MAX_DATA],
            seeds in prop::collection::vec((0u16..500, 0u16..300), 1..20),
        ) {
            let held: Vec<IndexSet> =
                seeds.iter().map(|(start, len)| IndexSet::range(*start..start + len)).collect();
            let mut after = held.clone();
            apply(&mut after, &mend(k, &held));
            prop_assert!(health(k, &after).is_durable);
            let shares = loads(k, held.len());
            let most = usize::from(*shares.iter().max().unwrap());
            let total = after.iter().map(IndexSet::len).sum::<usize>();
            prop_assert!(k == 1 || total <= most * after.len(), "{:?}", after);
            prop_assert!(mend(k, &after).is_empty());
        }
    }
}
