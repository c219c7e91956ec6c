//! The shared memory: everywhere soon, written on in every half, and never forgotten once acknowledged.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::time::Instant;

use starfish_tests::{Swarm, wait_until};

/// How a script is told that there is no such key.
const NO_SUCH_KEY: i32 = 4;
/// The exit status after ctrl-C, as shells have it.
const INTERRUPTED: i32 = 130;

#[test]
fn a_key_set_on_one_node_is_read_on_another() {
    let swarm = Swarm::start(3);
    let (writer, reader) = (swarm.node(0), swarm.node(2));
    assert_eq!(reader.run(["mem", "get", "colour"]).code, NO_SUCH_KEY);

    let begun = Instant::now();
    writer.ok(["mem", "set", "colour", "sea green"]);
    wait_until("the other reads it", || reader.run(["mem", "get", "colour"]).stdout == b"sea green\n");
    println!("read elsewhere {:?} after the command to set it began", begun.elapsed());

    reader.ok(["mem", "set", "colour", "blue"]);
    wait_until("the last word counts", || writer.ok(["mem", "get", "colour"]) == "blue\n");
    writer.ok(["mem", "del", "colour"]);
    wait_until("it is gone", || reader.run(["mem", "get", "colour"]).code == NO_SUCH_KEY);
    assert_eq!(writer.run(["mem", "del", "colour"]).code, NO_SUCH_KEY);
}

#[test]
fn values_are_any_bytes_and_keys_are_listed() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let value = b"\0\xff two\nlines\n";
    node.feed(["mem", "set", "bytes/any"], value).ok();
    assert_eq!(node.run(["mem", "get", "bytes/any"]).stdout, [&value[..], b"\n"].concat());
    node.ok(["mem", "set", "minus", "-x"]);
    node.ok(["mem", "set", "Ключ", ""]);
    assert_eq!(node.ok(["mem", "get", "Ключ"]), "\n");
    assert_eq!(node.ok(["mem", "ls", "--quiet"]), "bytes/any\nminus\nКлюч\n");
    assert_eq!(node.ok(["mem", "ls", "--quiet", "bytes/"]), "bytes/any\n");
    assert_eq!(node.json(["mem", "ls", "bytes/"])[0]["key"], "bytes/any", "as other commands take it");
    let too_long = node.feed(["mem", "set", "long"], vec![b'x'; (64 << 20) + 1]);
    assert_eq!(too_long.code, 1);
    assert!(too_long.stderr.contains("67108864 are allowed"), "{}", too_long.stderr);
    assert_eq!(too_long.stderr.matches("put it into a file").count(), 1, "{}", too_long.stderr);
    assert_eq!(node.run(["mem", "get", "long"]).code, NO_SUCH_KEY);
}

#[test]
fn a_large_value_is_read_everywhere_also_when_its_author_is_dead() {
    let swarm = Swarm::start(3);
    let file = swarm.scratch().random("value", 20 << 20);
    let (author, middle, reader) = (swarm.node(0), swarm.node(1), swarm.node(2));
    author.ok(["mem", "set", "model", "--file", &file, "--durable"]);
    author.ok(["mem", "hset", "--file", &file, "models", "v1"]);
    assert_eq!(author.json(["mem", "stat", "model"])["bytes"], 20 << 20);
    swarm.wait_same_memory();
    let expected = fs::read(&file).unwrap();
    assert!(reader.run(["mem", "get", "model"]).stdout == expected);
    assert!(reader.run(["mem", "hget", "models", "v1"]).stdout == expected);
    assert_eq!(reader.ok(["mem", "hget", "models"]), "{\"v1\":{\"bytes\":20971520}}\n");
    assert!(reader.ok(["mem", "ls"]).contains("(20 MiB)"), "{}", reader.ok(["mem", "ls"]));

    author.kill9();
    assert!(middle.run(["mem", "get", "model"]).stdout == expected);
    middle.ok(["mem", "append", "model", "more"]);
    middle.ok(["mem", "expire", "model", "1h"]);
    wait_until("the longer one is there", || {
        reader.run(["mem", "get", "model"]).stdout == [&expected[..], b"more"].concat()
    });
    middle.ok(["mem", "set", "model", "small again"]);
    wait_until("it is small again", || reader.run(["mem", "get", "model"]).stdout == b"small again\n");
    swarm.assert_memory_below(200 << 20);
}

#[test]
fn writes_may_depend_on_what_is_there() {
    let swarm = Swarm::start(2);
    let (node, other) = (swarm.node(0), swarm.node(1));
    node.ok(["mem", "set", "lock", "mine", "--if-absent"]);
    assert_eq!(node.run(["mem", "set", "lock", "yours", "--if-absent"]).code, 1);
    let version = node.json(["mem", "stat", "lock"])["version"].as_str().unwrap().to_owned();
    wait_until("the other has the same version", || {
        other.run(["mem", "stat", "lock"]).text().contains(&version)
    });
    other.ok(["mem", "set", "lock", "theirs", "--if-version", &version]);
    assert_eq!(other.run(["mem", "set", "lock", "late", "--if-version", &version]).code, 1);
    assert_eq!(other.run(["mem", "del", "lock", "--if-version", &version]).code, 1);
    for args in [
        &["mem", "set", "lock", "x", "--if-version", "nonsense"][..],
        &["mem", "del", "lock", "--if-version", "1"],
    ] {
        let refused = other.run(args);
        assert!(refused.code == 1 && refused.stderr.contains("this is no version"), "{}", refused.stderr);
    }
    wait_until("the later write is everywhere", || node.ok(["mem", "get", "lock"]) == "theirs\n");

    assert_eq!(node.ok(["mem", "append", "log", "one "]), "4\n");
    assert_eq!(node.feed(["mem", "append", "log"], "two").ok(), "7\n");
    node.ok(["mem", "expire", "log", "1h"]);
    assert!(node.json(["mem", "stat", "log"])["expires_ms"].is_u64());
    node.ok(["mem", "expire", "log"]);
    assert!(node.json(["mem", "stat", "log"])["expires_ms"].is_null());
    assert_eq!(node.run(["mem", "expire", "nothing", "1s"]).code, NO_SUCH_KEY);
    for args in [&["mem", "set", "log", "x", "--ttl", "0"][..], &["mem", "expire", "log", "0s"]] {
        let refused = node.run(args);
        assert!(refused.code == 2 && refused.stderr.contains("no time"), "{}", refused.stderr);
    }
    assert_eq!(node.ok(["mem", "get", "log"]), "one two\n");
}

#[test]
fn keys_hold_fields_and_members_that_all_nodes_see() {
    let swarm = Swarm::start(2);
    let (node, other) = (swarm.node(0), swarm.node(1));
    node.ok(["mem", "hset", "user", "name", "Ada", "age", "36"]);
    assert_eq!(node.ok(["mem", "hincr", "user", "age"]), "37\n");
    assert_eq!(node.ok(["mem", "sadd", "tags", "b", "a", "b"]), "2\n");
    swarm.wait_same_memory();
    assert_eq!(other.ok(["mem", "hget", "user"]), "{\"age\":\"37\",\"name\":\"Ada\"}\n");
    assert_eq!(other.ok(["mem", "hget", "user", "name"]), "Ada\n");
    assert_eq!(other.ok(["mem", "smembers", "tags"]), "a\nb\n");
    other.ok(["mem", "srem", "tags", "a", "never there"]);
    assert_eq!(other.run(["mem", "srem", "tags", "a"]).code, NO_SUCH_KEY);
    other.ok(["mem", "hdel", "user", "age", "never there"]);
    assert_eq!(other.run(["mem", "hdel", "user", "age"]).code, NO_SUCH_KEY);
    swarm.wait_same_memory();
    assert_eq!(node.run(["mem", "smembers", "tags", "a"]).code, NO_SUCH_KEY);
    assert_eq!(node.run(["mem", "hget", "user", "age"]).code, NO_SUCH_KEY);

    for args in [&["mem", "sadd", "tags", ""][..], &["mem", "smembers", "tags", ""], &["mem", "get", ""]] {
        let refused = node.run(args);
        assert!(refused.code == 2 && refused.stderr.contains("must not be empty"), "{}", refused.stderr);
    }
    let writes = "{\"key\":\"a\",\"value\":\"1\"}\n{\"key\":\"user\",\"field\":\"name\"}\n{\"key\":\"b\",\"value\":\"2\"}\n";
    node.feed(["mem", "batch"], writes).ok();
    assert_eq!(node.ok(["mem", "ls", "--from", "a", "--to", "b", "--quiet"]), "a\n");
    assert_eq!(node.run(["mem", "hget", "user"]).code, NO_SUCH_KEY);
    let refused = node.feed(["mem", "batch"], "{\"key\":\"c\",\"value\":\"3\"}\n{\"kee\":1}\n");
    assert!(refused.code != 0 && refused.stderr.contains("line 2"), "{}", refused.stderr);
    assert_eq!(node.run(["mem", "get", "c"]).code, NO_SUCH_KEY);
}

#[test]
fn a_watch_shows_what_is_there_and_then_what_happens_elsewhere() {
    let swarm = Swarm::start(2);
    let (writer, watcher) = (swarm.node(0), swarm.node(1));
    watcher.ok(["mem", "set", "user/ada", "1"]);
    let mut watching = watcher.spawn(["mem", "watch", "user/"]);
    wait_until("what is there is shown", || watching.stdout().contains("user/ada"));
    writer.ok(["mem", "set", "other/key", "2"]);
    writer.ok(["mem", "set", "user/bob", "3"]);
    wait_until("what comes is shown", || watching.stdout().contains("user/bob"));
    writer.ok(["mem", "hset", "user/h", "f", "v"]);
    writer.ok(["mem", "sadd", "user/s", "m"]);
    writer.ok(["mem", "incr", "user/n", "41"]);
    for shown in [
        r#"{"key":"user/h","field":"f","value":"v"}"#,
        r#"{"key":"user/s","member":"m"}"#,
        r#"{"key":"user/n","value":"41"}"#,
    ] {
        wait_until("what is no plain value is shown", || watching.stdout().contains(shown));
    }
    writer.ok(["mem", "srem", "user/s", "m"]);
    wait_until("a member's end is shown", || watching.stdout().contains("\"removed\":true"));
    writer.ok(["mem", "del", "user/bob"]);
    wait_until("what goes is shown", || watching.stdout().contains("\"deleted\":true"));
    assert!(!watching.stdout().contains("other/key"));
    watching.interrupt();
    assert_eq!(watching.finish().code, INTERRUPTED);
}

#[test]
fn a_watch_goes_on_where_another_stopped() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    node.ok(["mem", "set", "k", "first"]);
    let mut first = node.spawn(["mem", "watch", "--cursors"]);
    wait_until("all is told", || first.stdout().contains("\"live\":true"));
    node.ok(["mem", "set", "k", "two\nlines"]);
    wait_until("a change is told", || first.stdout().contains(r#""value":"two\nlines""#));
    first.interrupt();
    let told = first.finish();
    let cursor = told.text().lines().last().unwrap().split("\"cursor\":\"").nth(1).unwrap().to_owned();
    let cursor = cursor.trim_end_matches("\"}").to_owned();

    node.ok(["mem", "set", "k", "third"]);
    let mut second = node.spawn(["mem", "watch", "--from", &cursor]);
    wait_until("what came in between is told", || second.stdout().contains("third"));
    assert!(!second.stdout().contains("lines"), "what was told before is not");
    second.interrupt();
    assert_eq!(second.finish().code, INTERRUPTED);
    assert_ne!(node.run(["mem", "watch", "--from", "nonsense"]).code, 0);
}

#[test]
fn many_members_come_in_several_commits() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let members: Vec<String> = (0..5000).map(|number| number.to_string()).collect();
    let words = ["mem", "sadd", "set"].into_iter().chain(members.iter().map(String::as_str));
    assert_eq!(node.ok(words.clone()), "5000\n");
    assert_eq!(node.ok(words), "0\n");
    assert_eq!(node.ok(["mem", "smembers", "set"]).lines().count(), 5000);
}

#[test]
fn a_space_that_keeps_versions_shows_what_was_and_what_both_halves_wrote() {
    let swarm = Swarm::start(2);
    let (one, other) = (swarm.node(0), swarm.node(1));
    let set = |index: usize, value: &str| {
        swarm.node(index).ok(["mem", "--space", "docs", "set", "k", value]);
    };
    one.ok(["mem", "space", "docs", "--versions", "4", "--keep", "7d"]);
    swarm.wait_same_memory();
    assert_eq!(other.json(["mem", "space", "docs"])["versions"], 4);
    (1..=5).for_each(|number| set(0, &number.to_string()));
    swarm.wait_same_memory();
    let log = |index: usize| swarm.node(index).json(["mem", "--space", "docs", "log", "k"]);
    assert_eq!(log(1).as_array().unwrap().len(), 4);
    let oldest = log(1)[3]["version"].as_str().unwrap().to_owned();
    assert_eq!(other.ok(["mem", "--space", "docs", "get", "k", "--at", &oldest[..16]]), "2\n");

    swarm.partition(&[0], &[1]);
    set(0, "left");
    set(1, "right");
    swarm.heal();
    wait_until("both halves' writes are there", || {
        (0..2).all(|index| {
            let log = log(index);
            let states = log.as_array().unwrap().iter().map(|version| version["conflict"] == true);
            states.collect::<Vec<_>>() == [false, true, false, false]
        })
    });
    let lost = log(0)[1]["version"].as_str().unwrap().to_owned();
    other.ok(["mem", "--space", "docs", "restore", "k", &lost]);
    wait_until("what had lost is back", || one.ok(["mem", "--space", "docs", "get", "k"]) == "left\n");
    other.ok(["mem", "--space", "docs", "del", "k"]);
    swarm.wait_same_memory();
    assert_eq!(log(0)[0]["bytes"], serde_json::Value::Null, "the deletion is a version, too");
    let before = log(0)[1]["version"].as_str().unwrap().to_owned();
    one.ok(["mem", "--space", "docs", "restore", "k", &before]);
    assert_eq!(one.ok(["mem", "--space", "docs", "get", "k"]), "left\n");
    assert_eq!(one.run(["mem", "--space", "docs", "restore", "k", "ffff"]).code, NO_SUCH_KEY);
}

#[test]
fn two_halves_write_on_and_agree_when_they_meet() {
    let swarm = Swarm::start(4);
    let set = |index: usize, key: &str, value: &str| drop(swarm.node(index).ok(["mem", "set", key, value]));
    let get = |index: usize, key: &str| swarm.node(index).run(["mem", "get", key]).stdout;
    set(0, "before", "known to all");
    swarm.node(1).ok(["mem", "incr", "visits", "10"]);
    swarm.wait_same_memory();

    swarm.partition(&[0, 1], &[2, 3]);
    set(0, "left", "l");
    set(2, "right", "r");
    set(1, "both", "from the left");
    set(3, "both", "from the right, later");
    swarm.node(0).ok(["mem", "incr", "visits", "1"]);
    swarm.node(1).ok(["mem", "incr", "visits", "2"]);
    swarm.node(3).ok(["mem", "incr", "visits", "-4"]);
    swarm.node(2).ok(["mem", "del", "before"]);
    for (half, key, value) in [([0, 1], "left", b"l\n"), ([2, 3], "right", b"r\n")] {
        wait_until("both nodes of a half know", || half.iter().all(|index| get(*index, key) == value));
    }
    assert!(get(3, "left").is_empty() && get(0, "right").is_empty());

    swarm.heal();
    swarm.wait_same_memory();
    for index in 0..4 {
        assert_eq!(get(index, "left"), b"l\n");
        assert_eq!(get(index, "right"), b"r\n");
        assert_eq!(get(index, "both"), b"from the right, later\n");
        assert_eq!(get(index, "before"), b"");
        assert_eq!(get(index, "visits"), b"9\n");
    }
    swarm.wait_connected();
}

#[test]
fn kill_9_amid_writes_loses_nothing_that_was_acknowledged() {
    kill_amid_writes(3, 100);
}

#[test]
#[ignore = "200 kills take minutes: run it alone, with --ignored"]
fn kill_9_two_hundred_times_amid_writes_loses_nothing_that_was_acknowledged() {
    kill_amid_writes(200, 20);
}

/// Kills a node so many times, each time after so many writes were acknowledged; then all of them are there.
fn kill_amid_writes(rounds: usize, writes: usize) {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let mut counted = 0;
    for round in 0..rounds {
        // The shell says a number when its `mem set` has succeeded.
        let writers = ["a", "b"].map(|space| {
            let set = format!("mem --space {space} set r{round}-k$i v$i");
            node.spawn(["-c", &format!("i=0; while {set}; do echo $i; i=$((i+1)); done")])
        });
        let counter = node.spawn(["-c", "while mem incr n; do echo; done"]);
        wait_until("many writes are acknowledged", || {
            writers.iter().all(|writer| writer.stdout().lines().count() > writes)
        });
        node.kill9();
        node.restart();
        for (space, writer) in ["a", "b"].iter().zip(writers) {
            let acknowledged = writer.finish();
            let last: usize = acknowledged.text().lines().last().unwrap().parse().unwrap();
            let kept = node.json(["mem", "--space", space, "ls", &format!("r{round}-")]);
            let kept: Vec<&str> =
                kept.as_array().unwrap().iter().filter_map(|pair| pair["key"].as_str()).collect();
            for number in 0..=last {
                let key = format!("r{round}-k{number}");
                assert!(kept.contains(&key.as_str()), "{key} of {last} is lost");
            }
        }
        counted += counter.finish().text().lines().filter(|line| !line.is_empty()).count();
    }
    // One that was under way at a kill may count without having been acknowledged.
    let total: usize = node.run(["mem", "get", "n"]).text().trim().parse().unwrap_or(0);
    assert!(
        (counted..=counted + rounds).contains(&total),
        "{total} is not what {counted} increments come to"
    );
}

#[test]
fn a_damaged_memory_is_put_aside_and_comes_back_from_the_others() {
    let swarm = Swarm::start(2);
    let (node, other) = (swarm.node(0), swarm.node(1));
    let file = swarm.scratch().random("file", 1 << 20);
    node.ok(["put", &file, "/file"]);
    for _ in 0..3 {
        node.ok(["mem", "incr", "visits"]);
    }
    swarm.wait_same_memory();
    node.kill9();
    damage(&node.data_dir().join("swarm/memory"));
    node.restart();
    wait_until("all is back", || node.run(["mem", "get", "visits"]).stdout == b"3\n");
    assert!(node.logs().contains("the memory is damaged"), "{}", node.logs());
    node.ok(["stat", "/file"]);
    // What it counts now is on top of what it had counted.
    assert_eq!(node.ok(["mem", "incr", "visits"]), "4\n");
    wait_until("the other has heard", || other.ok(["mem", "get", "visits"]) == "4\n");
    assert_eq!(aside(&node.data_dir().join("swarm")), 1, "nothing is thrown away");
}

#[test]
fn who_is_alone_is_told_of_damage_and_nothing_is_touched() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    node.ok(["mem", "set", "key", "value"]);
    node.kill9();
    damage(&node.data_dir().join("swarm/memory"));
    let refused = node.run(["up"]);
    assert!(refused.code != 0 && refused.stderr.contains("damaged"), "{}", refused.stderr);
    assert_eq!(aside(&node.data_dir().join("swarm")), 0);
}

/// Makes the engine stumble over its own files.
fn damage(store: &Path) {
    fs::write(store.join("version"), b"no version").unwrap();
}

fn aside(folder: &Path) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().contains("damaged")).count()
}

#[test]
fn all_keys_are_listed_whatever_they_hold() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    node.ok(["mem", "set", "k-plain", "v"]);
    node.ok(["mem", "hset", "k-hash", "f", "v"]);
    node.ok(["mem", "sadd", "k-set", "x"]);
    assert_eq!(node.ok(["mem", "ls", "k", "--quiet"]), "k-hash\nk-plain\nk-set\n");
    let kinds = node.json(["mem", "ls", "k"]);
    let kinds: Vec<_> = kinds.as_array().unwrap().iter().map(|key| key["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["fields", "value", "members"]);
    assert_eq!(node.run(["mem", "set", "", "v"]).code, 2, "the empty key is not allowed");
    assert_eq!(node.run(["bogus"]).code, 2);
    let shown = node.ok(["mem", "ls", "k"]);
    assert!(shown.contains("a hash") && shown.contains("a set"), "{shown}");
}
