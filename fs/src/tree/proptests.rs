//! What must hold for every set of cells, in whatever order and however often they come.

use std::collections::{BTreeSet, HashSet};

use proptest::prelude::*;

use super::cell::{Body, FileContent};
use super::*;
use crate::path::VfsPath;

type Cell = (Inode, Stamp, Change);

fn inode(number: u8) -> Inode {
    if number == 0 { Inode::ROOT } else { Inode([number; 16]) }
}

fn stamp(time: u64, author: u8) -> Stamp {
    Stamp { time, author: [author; 16] }
}

fn content(kind: u8) -> Option<Content> {
    match kind {
        0 => None,
        1 => Some(Content::Symlink { target: "x".into() }),
        2..5 => Some(Content::Dir),
        _ => {
            let body = Body::Inline(Vec::new());
            Some(Content::File(FileContent { size: 0, hash: BlobHash::of(b""), holder: None, body }))
        }
    }
}

/// Few inodes, names and times, so that everything that can collide does.
fn any_cell() -> impl Strategy<Value = Cell> {
    let place = (0..8u8, prop::sample::select(vec!["a", "b", "lost+found"]), prop::option::of(0..12u64));
    let change = prop_oneof![
        4 => place.prop_map(|(parent, name, removed)| {
            let removed = removed.map(|time| stamp(time, (time % 3) as u8));
            Change::Place(Some(Place { parent: inode(parent), name: name.into(), removed }))
        }),
        1 => Just(Change::Place(None)),
        4 => (0..8u8).prop_map(|kind| Change::Content(content(kind))),
        1 => (0..0o777u32).prop_map(|mode| Change::Mode(Some(Mode { mode, mtime_ms: 0 }))),
    ];
    // A stamp is written once: author and time say what else the cell is, as in the real world.
    (0..8u8, 1..12u64, change)
        .prop_map(|(number, time, change)| (inode(number), stamp(time, (time % 3) as u8), change))
}

/// Keeps the first of the cells that have the same inode, field and stamp: there are no two such in reality.
fn distinct(cells: Vec<Cell>) -> Vec<Cell> {
    let mut seen = HashSet::new();
    let field = |change: &Change| std::mem::discriminant(change);
    cells.into_iter().filter(|(inode, stamp, change)| seen.insert((*inode, *stamp, field(change)))).collect()
}

fn build(cells: &[Cell]) -> Tree {
    let mut tree = Tree::default();
    for (inode, stamp, change) in cells.iter().cloned() {
        tree.apply(inode, stamp, change);
    }
    tree
}

/// Every path with what it leads to.
fn walk(tree: &Tree) -> Vec<(String, Found)> {
    let mut paths = Vec::new();
    let mut open = vec![(VfsPath::root(), vec![Inode::ROOT])];
    while let Some((path, dirs)) = open.pop() {
        for Listed { name, found } in tree.list(&dirs) {
            let path = path.join(&name).unwrap();
            if let Found::Dir(dirs) = &found {
                open.push((path.clone(), dirs.clone()));
            }
            paths.push((path.to_string(), found));
        }
    }
    paths.sort_by(|left, right| left.0.cmp(&right.0));
    paths
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn order_and_repetition_do_not_matter(
        (cells, shuffled) in prop::collection::vec(any_cell(), 0..40).prop_map(distinct).prop_flat_map(|cells| {
            let twice = [cells.clone(), cells.clone()].concat();
            (Just(cells), Just(twice).prop_shuffle())
        }),
    ) {
        prop_assert_eq!(walk(&build(&cells)), walk(&build(&shuffled)));
    }

    #[test]
    fn every_live_inode_has_exactly_one_path(cells in prop::collection::vec(any_cell(), 0..40).prop_map(distinct)) {
        let tree = build(&cells);
        let mut reached: Vec<Inode> =
            walk(&tree).iter().flat_map(|(_, found)| found.inodes().to_vec()).collect();
        reached.retain(|inode| *inode != Inode::LOST);
        reached.sort_unstable();
        let mut live: Vec<Inode> =
            tree.nodes.iter().filter(|(_, node)| node.is_live()).map(|(inode, _)| *inode).collect();
        live.sort_unstable();
        prop_assert_eq!(reached, live);
    }

    #[test]
    fn every_listed_name_resolves_to_what_was_listed(
        cells in prop::collection::vec(any_cell(), 0..40).prop_map(distinct),
    ) {
        let tree = build(&cells);
        for (path, found) in walk(&tree) {
            prop_assert_eq!(tree.find(&VfsPath::parse(&path).unwrap()), Ok(found), "{}", path);
        }
    }

    #[test]
    fn a_cell_of_one_file_makes_no_other_entry_vanish(
        cells in prop::collection::vec(any_cell(), 0..40).prop_map(distinct), extra in any_cell(),
    ) {
        let before = build(&cells);
        let mut after = build(&cells);
        after.apply(extra.0, extra.1, extra.2);
        let live = |tree: &Tree| -> BTreeSet<Inode> {
            walk(tree).iter().flat_map(|(_, found)| found.inodes().to_vec()).collect()
        };
        let mut vanished = &live(&before) - &live(&after);
        vanished.remove(&extra.0);
        vanished.remove(&Inode::LOST);
        prop_assert!(vanished.is_empty(), "{:?}", vanished);
    }
}

fn file(tree: &mut Tree, number: u8, parent: Inode, name: &str, time: u64) {
    put(tree, number, parent, name, time, content(7));
}

fn dir(tree: &mut Tree, number: u8, parent: Inode, name: &str, time: u64) {
    put(tree, number, parent, name, time, content(2));
}

fn put(tree: &mut Tree, number: u8, parent: Inode, name: &str, time: u64, content: Option<Content>) {
    let stamp = stamp(time, number);
    tree.apply(inode(number), stamp, Change::Content(content));
    tree.apply(inode(number), stamp, Change::Place(Some(Place { parent, name: name.into(), removed: None })));
}

fn paths(tree: &Tree) -> Vec<String> {
    walk(tree).into_iter().map(|(path, _)| path).collect()
}

#[test]
fn directories_of_one_name_are_one() {
    let mut tree = Tree::default();
    dir(&mut tree, 1, Inode::ROOT, "a", 1);
    dir(&mut tree, 2, Inode::ROOT, "a", 2);
    dir(&mut tree, 3, inode(1), "b", 3);
    dir(&mut tree, 4, inode(2), "b", 3);
    file(&mut tree, 5, inode(3), "x", 4);
    file(&mut tree, 6, inode(4), "y", 4);
    assert_eq!(paths(&tree), ["/a", "/a/b", "/a/b/x", "/a/b/y"]);
}

#[test]
fn the_second_file_of_one_name_shows_as_a_conflict() {
    let mut tree = Tree::default();
    file(&mut tree, 2, Inode::ROOT, "a", 5);
    file(&mut tree, 1, Inode::ROOT, "a", 6);
    assert_eq!(paths(&tree), ["/a", "/a (conflict of 01010101)"]);
    assert_eq!(tree.find(&VfsPath::parse("/a").unwrap()), Ok(Found::Leaf(inode(2))));
}

#[test]
fn an_edit_outlives_a_removal_that_did_not_see_it() {
    let mut tree = Tree::default();
    file(&mut tree, 1, Inode::ROOT, "a", 1);
    let removal = tree.removal(inode(1));
    tree.apply(inode(1), stamp(2, 1), Change::Content(content(7)));
    tree.apply(inode(1), stamp(3, 2), Change::Place(removal));
    assert_eq!(paths(&tree), ["/a"], "the removal is later, but knew of the older content only");
    let removal = tree.removal(inode(1));
    tree.apply(inode(1), stamp(4, 2), Change::Place(removal));
    assert_eq!(paths(&tree), [""; 0]);
}

#[test]
fn what_was_put_into_a_removed_directory_is_found() {
    let mut tree = Tree::default();
    dir(&mut tree, 1, Inode::ROOT, "d", 1);
    file(&mut tree, 2, inode(1), "new", 2);
    let removal = tree.removal(inode(1));
    tree.apply(inode(1), stamp(3, 3), Change::Place(removal));
    assert_eq!(paths(&tree), ["/lost+found", "/lost+found/new"]);
}

#[test]
fn a_cycle_is_cut_where_it_was_closed() {
    let mut tree = Tree::default();
    dir(&mut tree, 1, Inode::ROOT, "a", 1);
    dir(&mut tree, 2, Inode::ROOT, "b", 1);
    file(&mut tree, 3, inode(1), "x", 1);
    let into = |parent, name: &str| Change::Place(Some(Place { parent, name: name.into(), removed: None }));
    tree.apply(inode(1), stamp(5, 1), into(inode(2), "a"));
    tree.apply(inode(2), stamp(6, 2), into(inode(1), "b"));
    assert_eq!(paths(&tree), ["/lost+found", "/lost+found/b", "/lost+found/b/a", "/lost+found/b/a/x"]);
    tree.apply(inode(2), stamp(7, 1), into(Inode::ROOT, "b"));
    assert_eq!(paths(&tree), ["/b", "/b/a", "/b/a/x"], "moving either out heals it");
}
