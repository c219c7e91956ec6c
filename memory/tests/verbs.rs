//! What can be done with a key: conditional writes, fields, members, ranges, and watching on from a place.

use std::time::Duration;

use bytes::Bytes;
use starfish_dht::{
    PeerId,
    testing::{PATIENCE, wait_until},
};
use starfish_memory::{
    BlobError, Change, Condition, Durability, Event, Glance, KeyKind, KeyRange, Lifetime, MAX_BATCH_CELLS,
    MAX_KEY, MAX_MEMBER, Memory, Put, Space, Value, WriteError,
};
use tempfile::TempDir;

struct Node {
    memory: Memory,
    space: Space,
    // Goes last.
    _dir: TempDir,
}

fn node() -> anyhow::Result<Node> {
    let dir = tempfile::tempdir()?;
    let memory = Memory::open(dir.path(), &PeerId::random())?;
    Ok(Node { space: memory.space("test")?, memory, _dir: dir })
}

fn bytes(texts: &[&'static str]) -> Vec<Bytes> {
    texts.iter().map(|text| Bytes::from_static(text.as_bytes())).collect()
}

#[tokio::test]
async fn a_write_may_depend_on_what_is_there() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    let put = |value: &'static str, condition| space.put(b"k", value.into(), Lifetime::Forever, condition);
    assert_eq!(put("no", Condition::Present).await?.version, None);
    let first = put("one", Condition::Absent).await?.version.expect("there was no key");
    let refused = put("two", Condition::Absent).await?;
    assert_eq!((refused.version, refused.before.unwrap().value), (None, "one".into()));
    let second = put("two", Condition::Version(first)).await?.version.expect("nobody came in between");
    assert_eq!(put("three", Condition::Version(first)).await?.version, None);
    assert_eq!(space.remove(b"k", Condition::Version(first)).await?.version, None);
    assert_eq!(space.entry(b"k").await?.unwrap().version, second);
    assert!(space.remove(b"k", Condition::Version(second)).await?.version.is_some());
    assert_eq!(space.get(b"k").await?, None);
    Ok(())
}

#[tokio::test]
async fn an_increment_is_a_new_version() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    space.incr(b"n", 1).await?;
    let version = space.entry(b"n").await?.unwrap().version;
    space.incr(b"n", 1).await?;
    let refused = space.put(b"n", "0".into(), Lifetime::Forever, Condition::Version(version)).await?;
    assert_eq!((refused.version, refused.before.unwrap().value), (None, "2".into()));
    Ok(())
}

#[tokio::test]
async fn of_many_who_write_only_if_absent_one_succeeds() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    let tasks: Vec<_> = (0..64)
        .map(|number: i32| {
            let space = space.clone();
            let value = number.to_string().into();
            tokio::spawn(async move { space.put(b"lock", value, Lifetime::Forever, Condition::Absent).await })
        })
        .collect();
    let mut n_written = 0;
    for task in tasks {
        n_written += usize::from(task.await??.version.is_some());
    }
    assert_eq!(n_written, 1);
    Ok(())
}

#[tokio::test]
async fn values_grow_and_keep_their_time() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    assert_eq!(space.append(b"log", "one ".into()).await?, 4);
    assert!(space.expire(b"log", Lifetime::For(Duration::from_secs(60))).await?);
    assert_eq!(space.append(b"log", "two".into()).await?, 7);
    let entry = space.entry(b"log").await?.unwrap();
    assert_eq!(entry.value, "one two".into());
    assert!(entry.expires_ms.is_some());
    assert!(space.expire(b"log", Lifetime::Forever).await?);
    assert_eq!(space.entry(b"log").await?.unwrap().expires_ms, None);
    assert!(!space.expire(b"nothing", Lifetime::Forever).await?);
    let long = Bytes::from(vec![0; starfish_memory::MAX_VALUE]);
    assert!(matches!(space.append(b"log", long).await, Err(WriteError::Blob(BlobError::NoKeeper))));
    let (_, taken) = space
        .modify(b"log", |before| Ok((Change::Delete, before.map(|before| before.value.clone()))))
        .await?;
    assert_eq!(taken.unwrap(), "one two".into());
    Ok(())
}

#[tokio::test]
async fn a_counter_that_begins_anew_when_its_time_is_over_lasts() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    space.incr(b"n", 5).await?;
    assert!(space.expire(b"n", Lifetime::For(Duration::from_millis(1))).await?);
    wait_until("its time is over", PATIENCE, || async { space.get(b"n").await.unwrap().is_none() }).await;
    assert_eq!(space.incr(b"n", 2).await?, 2);
    assert_eq!(space.entry(b"n").await?.unwrap().expires_ms, None);
    assert_eq!(space.append(b"n", "0".into()).await?, 2);
    assert_eq!(space.get(b"n").await?.unwrap(), "20", "what takes over its time lasts as well");
    Ok(())
}

#[tokio::test]
async fn a_hash_has_fields() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    let pair = |field: &'static str, value: &'static str| (Bytes::from(field), Bytes::from(value));
    assert_eq!(space.set_fields(b"h", vec![pair("a", "1"), pair("b", "2"), pair("a", "3")]).await?, 2);
    assert_eq!(space.set_fields(b"h", vec![pair("a", "4"), pair("c", "5")]).await?, 1);
    assert_eq!(space.field(b"h", b"a").await?.unwrap(), "4");
    assert_eq!(space.incr_field(b"h", b"a", 6).await?, 10);
    assert!(matches!(space.incr_field(b"h", b"b", i64::MAX).await, Err(WriteError::Increment(_))));
    assert_eq!(space.delete_fields(b"h", bytes(&["b", "x"])).await?, 1);
    assert_eq!(space.fields(b"h").await?, [("a".into(), "10".into()), ("c".into(), "5".into())]);
    let unnamed = space.set_fields(b"h", vec![pair("", "1")]).await;
    assert!(matches!(unnamed, Err(WriteError::Empty { what: "field" })));
    assert!(matches!(space.set_fields(b"h", vec![pair("\0s", "1")]).await, Err(WriteError::ReservedField)));
    assert_eq!(space.kind(b"h").await?, Some(KeyKind::Fields));
    assert!(space.delete(b"h").await?);
    assert_eq!(space.kind(b"h").await?, None);
    Ok(())
}

#[tokio::test]
async fn a_set_has_members() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    assert_eq!(space.add_members(b"s", bytes(&["b", "a", "b", "z"])).await?, 3);
    assert_eq!(space.add_members(b"s", bytes(&["a", "c"])).await?, 1);
    assert_eq!(space.remove_members(b"s", bytes(&["b", "x"])).await?, 1);
    assert_eq!(space.members(b"s").await?, bytes(&["a", "c", "z"]));
    assert!(space.is_member(b"s", b"a").await? && !space.is_member(b"s", b"b").await?);
    assert!(space.fields(b"s").await?.is_empty());
    assert_eq!(space.kind(b"s").await?, Some(KeyKind::Members));
    assert!(space.delete(b"s").await?);
    assert!(space.members(b"s").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_member_has_a_limit_of_its_own() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    let member = |len: usize| vec![Bytes::from(vec![b'm'; len])];
    assert_eq!(space.add_members(b"s", member(MAX_MEMBER)).await?, 1);
    let refused = space.add_members(b"s", member(MAX_MEMBER + 1)).await.unwrap_err();
    assert_eq!(refused.to_string(), "the member has 1023 bytes, 1022 are allowed");
    assert_eq!(space.remove_members(b"s", member(MAX_MEMBER)).await?, 1);
    Ok(())
}

#[tokio::test]
async fn whatever_is_written_has_a_name() -> anyhow::Result<()> {
    let Node { memory, space, .. } = &node()?;
    let is_empty = |written: Result<(), WriteError>, what: &str| match written {
        Err(WriteError::Empty { what: told }) => assert_eq!(told, what),
        other => panic!("{other:?}"),
    };
    let mut batch = space.batch();
    batch.put("a", "", "1").put("", "", "1");
    is_empty(memory.commit(batch).await.map(drop), "key");
    is_empty(space.set(b"", "1".into(), None).await.map(drop), "key");
    is_empty(space.put_each(vec![Put { key: "".into(), value: "1".into(), ttl: None }]).await, "key");
    is_empty(space.incr(b"", 1).await.map(drop), "key");
    is_empty(space.append(b"", "1".into()).await.map(drop), "key");
    is_empty(space.set_fields(b"", vec![("f".into(), "1".into())]).await.map(drop), "key");
    is_empty(space.incr_field(b"h", b"", 1).await.map(drop), "field");
    is_empty(space.add_members(b"", bytes(&["m"])).await.map(drop), "key");
    is_empty(space.add_members(b"s", bytes(&["m", ""])).await.map(drop), "member");
    is_empty(space.change_members(b"s", bytes(&[""]), vec![]).await.map(drop), "member");
    assert!(space.keys(KeyRange::default(), 10).await?.is_empty());

    // What versions before this one let in can go.
    assert!(!space.delete(b"").await?);
    assert_eq!(space.remove_members(b"s", bytes(&[""])).await?, 0);
    Ok(())
}

#[tokio::test]
async fn more_members_than_a_batch_takes_come_and_go_in_several() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    let members: Vec<Bytes> = (0..MAX_BATCH_CELLS + 10).map(|number| number.to_string().into()).collect();
    assert_eq!(space.add_members(b"s", members.clone()).await?, members.len());
    assert_eq!(space.add_members(b"s", members.clone()).await?, 0);
    assert_eq!(space.members(b"s").await?.len(), members.len());
    assert_eq!(space.remove_members(b"s", members.clone()).await?, members.len());
    assert_eq!(space.kind(b"s").await?, None);
    Ok(())
}

#[tokio::test]
async fn what_a_key_holds_is_seen_behind_much_that_is_gone() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    let fields: Vec<Bytes> = (0..200).map(|number| format!("f{number:03}").into()).collect();
    space.set_fields(b"h", fields.iter().map(|field| (field.clone(), "v".into())).collect()).await?;
    space.delete_fields(b"h", fields).await?;
    assert_eq!(space.kind(b"h").await?, None);
    space.add_members(b"h", bytes(&["m"])).await?;
    assert_eq!(space.kind(b"h").await?, Some(KeyKind::Members));
    space.set_fields(b"h", vec![("z".into(), "v".into())]).await?;
    assert_eq!(space.kind(b"h").await?, Some(KeyKind::Fields));
    Ok(())
}

#[tokio::test]
async fn writes_that_share_the_way_stand_by_themselves() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    let put = |key: &'static str, ttl| Put { key: key.into(), value: "v".into(), ttl };
    space.put_each(vec![put("a", None), put("b", Some(Duration::from_secs(60))), put("c", None)]).await?;
    let (a, b) = (space.entry(b"a").await?.unwrap(), space.entry(b"b").await?.unwrap());
    assert_eq!((a.expires_ms, b.expires_ms.is_some()), (None, true));
    assert!(a.version < b.version, "each has a version of its own");
    let long = Bytes::from(vec![b'k'; MAX_KEY + 1]);
    let refused = space.put_each(vec![put("d", None), Put { key: long, value: "v".into(), ttl: None }]).await;
    assert!(matches!(refused, Err(WriteError::KeyTooLong { .. })));
    assert_eq!(space.get(b"d").await?, None, "what cannot be written as a whole is not begun");
    Ok(())
}

#[tokio::test]
async fn one_look_tells_what_is_plain_and_no_more() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    space.set(b"text", "v".into(), None).await?;
    space.incr(b"count", 1).await?;
    space.set_fields(b"hash", vec![("f".into(), "v".into())]).await?;
    space.set(b"gone", "v".into(), None).await?;
    space.delete(b"gone").await?;
    space.set(b"number", "7".into(), None).await?;
    assert_eq!(space.glance(b"text"), Glance::Value("v".into()));
    assert_eq!(space.glance(b"number"), Glance::Value("7".into()), "nobody has counted on top of it");
    assert_eq!(space.glance(b"nothing"), Glance::Nothing);
    assert_eq!(space.glance(b"gone"), Glance::Nothing);
    for key in ["count", "hash"] {
        assert_eq!(space.glance(key.as_bytes()), Glance::More, "{key}");
    }
    space.incr(b"number", 1).await?;
    assert_eq!(space.glance(b"number"), Glance::More);
    assert_eq!(space.get(b"number").await?.unwrap(), "8");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn several_keys_are_read_as_of_one_moment() -> anyhow::Result<()> {
    const ROUNDS: u32 = 500;
    let Node { memory, space, .. } = &node()?;
    let keys: Vec<Bytes> = (0..10).map(|number| format!("key{number}").into()).collect();
    let quick = memory.with_durability(Durability::EverySecond);
    let writer = tokio::spawn({
        let (space, keys) = (space.clone(), keys.clone());
        async move {
            for round in 0..ROUNDS {
                let mut batch = space.batch();
                keys.iter().for_each(|key| _ = batch.put(key.clone(), "", format!("v{round}")));
                quick.commit(batch).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let values = space.values(&keys).await?;
        assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
        let listed = space.holdings(KeyRange::prefix(b"key"), 10).await?;
        assert!(listed.iter().all(|holding| holding.value == listed[0].value), "{listed:?}");
    }
    writer.await?;
    space.set(&keys[0], "7".into(), None).await?;
    space.incr(&keys[0], 1).await?;
    space.delete(&keys[1]).await?;
    space.set_fields(&keys[1], vec![("f".into(), "v".into())]).await?;
    let last = Some(Value::from("v499"));
    assert_eq!(space.values(&keys[..3]).await?, [Some("8".into()), None, last]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_seen_whole_or_not_at_all_also_while_the_engine_writes_tables() -> anyhow::Result<()> {
    // So much that the engine is often done with a table in the middle of a commit.
    const ROUNDS: u8 = 40;
    let Node { memory, space, .. } = &node()?;
    let keys: Vec<Bytes> = (0..1000).map(|number| format!("key{number:03}").into()).collect();
    let ends = [keys[0].clone(), keys[999].clone()];
    let quick = memory.with_durability(Durability::EverySecond);
    let writer = tokio::spawn({
        let space = space.clone();
        async move {
            for round in 0..ROUNDS {
                let (mut batch, value) = (space.batch(), vec![round; 3 * 1024]);
                keys.iter().for_each(|key| _ = batch.put(key.clone(), "", value.clone()));
                quick.commit(batch).await.unwrap();
            }
        }
    });
    while !writer.is_finished() {
        let seen = space.values(&ends).await?;
        assert!(seen[0] == seen[1], "one end of a batch without the other");
    }
    Ok(writer.await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_seen_one_cell_of_a_batch_misses_none_of_the_others() -> anyhow::Result<()> {
    const ROUNDS: u32 = 500;
    let Node { memory, space, .. } = &node()?;
    let reader = {
        let space = space.clone();
        tokio::task::spawn_blocking(move || {
            for round in 0..ROUNDS {
                let first = format!("first{round}");
                while space.glance(first.as_bytes()) == Glance::Nothing {}
                let second = format!("second{round}");
                assert_eq!(space.glance(second.as_bytes()), Glance::More, "{second} has a field");
            }
        })
    };
    let quick = memory.with_durability(Durability::EverySecond);
    for round in 0..ROUNDS {
        let mut batch = space.batch();
        batch.put(format!("first{round}"), "", "there").put(format!("second{round}"), "field", "there");
        quick.commit(batch).await?;
    }
    Ok(reader.await?)
}

#[tokio::test]
async fn ranges_are_read_page_by_page_while_others_write() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    for number in 0..100 {
        space.set(format!("k{number:02}").as_bytes(), "v".into(), None).await?;
    }
    space.add_members(b"k50s", bytes(&["m"])).await?;
    let range = KeyRange { from: Some("k10".into()), to: Some("k60".into()), ..KeyRange::prefix(b"k") };
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = space.keys(KeyRange { after: after.clone(), ..range.clone() }, 7).await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        // Behind the page nothing is missed, before it nothing is seen again.
        space.set(b"k00a", "v".into(), None).await?;
        space.delete(b"k05").await?;
        seen.extend(page);
    }
    assert_eq!(seen.len(), 51);
    assert!(seen.is_sorted_by(|a, b| a.0 < b.0));
    assert_eq!(space.scan_range(range, 1000).await?.len(), 50, "a set has no plain value");
    Ok(())
}

#[tokio::test]
async fn a_watch_goes_on_where_another_stopped() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    space.set(b"w/a", "1".into(), None).await?;
    let mut watch = space.watch(b"w/");
    assert_eq!(watch.next().await, Some(Event::Value { key: "w/a".into(), value: "1".into() }));
    assert_eq!(watch.cursor(), None);
    assert_eq!(watch.next().await, Some(Event::Live));
    let cursor = watch.cursor().expect("the snapshot is over");
    drop(watch);
    space.set(b"w/b", "1".into(), None).await?;
    space.set(b"x", "1".into(), None).await?;
    space.set(b"w/b", "2".into(), None).await?;
    space.delete(b"w/a").await?;
    let mut watch = space.watch_from(b"w/", cursor.to_string().parse()?);
    assert_eq!(watch.next().await, Some(Event::Value { key: "w/b".into(), value: "2".into() }));
    assert_eq!(watch.next().await, Some(Event::Deleted { key: "w/a".into() }));
    space.set(b"w/c", "3".into(), None).await?;
    assert_eq!(watch.next().await, Some(Event::Value { key: "w/c".into(), value: "3".into() }));

    // A cursor of another node, or of this one before it stopped, leads to a new snapshot.
    let mut watch = space.watch_from(b"w/", "00000000000000ff-1".parse()?);
    assert_eq!(watch.next().await, Some(Event::Lagged));
    assert_eq!(watch.next().await, Some(Event::Value { key: "w/b".into(), value: "2".into() }));
    Ok(())
}

#[tokio::test]
async fn a_watch_tells_of_fields_members_and_counters_first_as_they_are_and_then_as_they_change()
-> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    let field = |field: &'static str, value: &'static str| {
        Some(Event::Field { key: "w/h".into(), field: field.into(), value: value.into() })
    };
    let member = |member: &'static str| Some(Event::Member { key: "w/s".into(), member: member.into() });
    let counted = |value: &'static str| Some(Event::Value { key: "w/n".into(), value: value.into() });
    space.set_fields(b"w/h", vec![("a".into(), "1".into()), ("b".into(), "2".into())]).await?;
    space.delete_fields(b"w/h", vec!["a".into()]).await?;
    space.incr(b"w/n", 5).await?;
    space.add_members(b"w/s", vec!["x".into(), "y".into()]).await?;
    space.set_fields(b"other", vec![("a".into(), "1".into())]).await?;

    let mut watch = space.watch(b"w/");
    for told in [field("b", "2"), counted("5"), member("x"), member("y"), Some(Event::Live)] {
        assert_eq!(watch.next().await, told);
    }
    let cursor = watch.cursor().expect("the snapshot is over");
    space.set_fields(b"w/h", vec![("b".into(), "3".into())]).await?;
    assert_eq!(watch.next().await, field("b", "3"));
    space.incr(b"w/n", 1).await?;
    assert_eq!(watch.next().await, counted("6"));
    space.remove_members(b"w/s", vec!["x".into()]).await?;
    assert_eq!(watch.next().await, Some(Event::MemberRemoved { key: "w/s".into(), member: "x".into() }));
    space.delete(b"w/h").await?;
    let gone = Some(Event::FieldDeleted { key: "w/h".into(), field: "b".into() });
    assert_eq!(watch.next().await, gone);

    // Who was away hears of each place once, as it is now.
    let mut watch = space.watch_from(b"w/", cursor);
    assert_eq!(watch.next().await, counted("6"));
    assert_eq!(watch.next().await, Some(Event::MemberRemoved { key: "w/s".into(), member: "x".into() }));
    assert_eq!(watch.next().await, gone);
    Ok(())
}

#[tokio::test]
async fn a_snapshot_of_a_large_hash_comes_page_by_page_and_whole() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    let fields = (0..1000).map(|i| (format!("f{i:03}").into(), "v".into())).collect();
    space.set_fields(b"h", fields).await?;
    space.set(b"h", "plain".into(), None).await?;
    space.incr(b"i", 1).await?;
    let mut watch = space.watch(b"");
    assert_eq!(watch.next().await, Some(Event::Value { key: "h".into(), value: "plain".into() }));
    for i in 0..1000 {
        let told = Event::Field { key: "h".into(), field: format!("f{i:03}").into(), value: "v".into() };
        assert_eq!(watch.next().await, Some(told));
    }
    assert_eq!(watch.next().await, Some(Event::Value { key: "i".into(), value: "1".into() }));
    assert_eq!(watch.next().await, Some(Event::Live));
    Ok(())
}

#[tokio::test]
async fn a_watcher_that_was_too_slow_misses_nothing_that_still_stands() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    let mut watch = space.watch(b"");
    assert_eq!(watch.next().await, Some(Event::Live));
    let tasks: Vec<_> = (0..3000)
        .map(|number: u32| {
            let space = space.clone();
            tokio::spawn(async move {
                space.set(format!("{:04}", number % 1500).as_bytes(), "v".into(), None).await
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 1500 {
        match watch.next().await {
            Some(Event::Value { key, .. }) => seen.insert(key),
            other => anyhow::bail!("{other:?} after {} keys", seen.len()),
        };
    }
    Ok(())
}

#[tokio::test]
async fn watchers_hear_when_the_time_of_a_value_is_over() -> anyhow::Result<()> {
    let Node { space, .. } = &node()?;
    let mut watch = space.watch(b"");
    assert_eq!(watch.next().await, Some(Event::Live));
    space.set(b"k", "v".into(), Some(Duration::from_millis(300))).await?;
    assert_eq!(watch.next().await, Some(Event::Value { key: "k".into(), value: "v".into() }));
    assert_eq!(watch.next().await, Some(Event::Deleted { key: "k".into() }));
    Ok(())
}
