//! The port for Redis clients, over a real socket.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use redis_protocol::resp2::decode::decode_bytes_mut as decode2;
use redis_protocol::resp2::types::BytesFrame as Frame2;
use redis_protocol::resp3::decode::complete::decode_bytes_mut as decode3;
use redis_protocol::resp3::types::BytesFrame as Frame3;
use starfish_node::{Layer, MemoryLayer, StartError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{TestNode, free_port, start_as};

const PATIENCE: Duration = Duration::from_secs(30);

/// A node with the port open.
struct Server {
    node: TestNode,
    port: u16,
}

impl Server {
    async fn start() -> Self {
        let port = free_port();
        let layer =
            Layer { memory: MemoryLayer { redis: Some(port), ..MemoryLayer::default() }, ..Layer::default() };
        Self { node: TestNode::start_with(layer).await, port }
    }

    /// Somebody who has not shown the password.
    async fn stranger(&self) -> Client {
        Client {
            stream: TcpStream::connect(("127.0.0.1", self.port)).await.unwrap(),
            arrived: BytesMut::new(),
        }
    }

    async fn client(&self) -> Client {
        let mut client = self.stranger().await;
        assert_eq!(client.ask(&format!("AUTH {}", self.node.token())).await, "+OK");
        client
    }
}

struct Client {
    stream: TcpStream,
    arrived: BytesMut,
}

impl Client {
    /// Sends commands, whose words are separated by spaces, without waiting.
    async fn send<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) {
        let mut bytes = Vec::new();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            bytes.extend(format!("*{}\r\n", words.len()).into_bytes());
            words.iter().for_each(|word| bytes.extend(format!("${}\r\n{word}\r\n", word.len()).into_bytes()));
        }
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn more(&mut self) {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.arrived));
        assert_ne!(read.await.expect("an answer").unwrap(), 0, "the connection ended");
    }

    async fn answer(&mut self) -> String {
        loop {
            if let Some((frame, ..)) = decode2(&mut self.arrived).unwrap() {
                return shown(&frame);
            }
            self.more().await;
        }
    }

    async fn answer3(&mut self) -> Frame3 {
        loop {
            if let Some((frame, ..)) = decode3(&mut self.arrived).unwrap() {
                return frame;
            }
            self.more().await;
        }
    }

    async fn ask(&mut self, line: &str) -> String {
        self.send([line]).await;
        self.answer().await
    }

    /// Asks each of them, and holds the answers against those behind the `=>`.
    async fn check(&mut self, dialogue: &str) {
        for line in dialogue.lines().map(str::trim_start).filter(|line| !line.is_empty()) {
            let (command, answer) = line.split_once(" => ").unwrap();
            assert_eq!(self.ask(command).await, answer, "{command}");
        }
    }

    /// The rest of what the server has to say, until it ends the connection.
    async fn last_words(mut self) -> String {
        tokio::time::timeout(PATIENCE, async {
            while let Ok(1..) = self.stream.read_buf(&mut self.arrived).await {}
        })
        .await
        .expect("an end");
        String::from_utf8_lossy(&self.arrived).trim_end().to_owned()
    }
}

fn shown(frame: &Frame2) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    match frame {
        Frame2::SimpleString(word) => format!("+{}", text(word)),
        Frame2::Error(error) => format!("-{error}"),
        Frame2::Integer(integer) => format!(":{integer}"),
        Frame2::BulkString(bytes) => text(bytes),
        Frame2::Null => "nil".to_owned(),
        Frame2::Array(frames) => format!("[{}]", frames.iter().map(shown).collect::<Vec<_>>().join(" ")),
    }
}

const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

#[tokio::test]
async fn nothing_is_done_without_the_password() {
    let server = Server::start().await;
    let mut stranger = server.stranger().await;
    stranger
        .check(
            "PING => -NOAUTH Authentication required.
            GET a => -NOAUTH Authentication required.
            AUTH wrong => -WRONGPASS invalid username-password pair or user is disabled.
            AUTH default wrong => -WRONGPASS invalid username-password pair or user is disabled.
            GET a => -NOAUTH Authentication required.",
        )
        .await;
    assert!(stranger.ask("HELLO 3").await.starts_with("-NOAUTH HELLO must be called"));
    let token = server.node.token();
    assert!(stranger.ask(&format!("AUTH root {token}")).await.starts_with("-WRONGPASS"));
    stranger.check(&format!("AUTH default {token} => +OK\nPING => +PONG\nPING x => x")).await;
    assert!(stranger.ask("HELLO 2").await.contains("proto :2"));

    // Nor is room made for what a stranger announces.
    let mut greedy = server.stranger().await;
    greedy.stream.write_all(b"*3\r\n$3\r\nSET\r\n$1048576\r\n").await.unwrap();
    assert_eq!(greedy.last_words().await, "-ERR Protocol error: unauthenticated bulk length");
    server.node.stop().await;
}

#[tokio::test]
async fn plain_values_behave_as_in_redis() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client
        .check(
            "GET a => nil
            SET a 1 => +OK
            get a => 1
            SET a 2 NX => nil
            SET b 2 XX => nil
            SET b 2 NX => +OK
            SET a 3 GET => 1
            SET c 3 GET => nil
            MGET a b nothing => [3 2 nil]
            MSET a x d y => +OK
            MGET a d => [x y]
            EXISTS a b nothing a => :3
            DEL a b nothing => :2
            EXISTS a b => :0
            GETDEL d => y
            GETDEL d => nil
            INCR n => :1
            INCRBY n 41 => :42
            DECR n => :41
            DECRBY n 40 => :1
            GET n => 1
            SET n 9223372036854775807 => +OK
            INCR n => -ERR increment or decrement would overflow
            SET n x => +OK
            INCR n => -ERR value is not an integer or out of range
            INCRBYFLOAT f 10.5 => 10.5
            INCRBYFLOAT f 0.1 => 10.6
            INCRBYFLOAT f 999.5 => 1010.1
            INCRBYFLOAT f -1110.1 => -100
            INCRBYFLOAT n 1 => -ERR value is not a valid float
            APPEND s ab => :2
            APPEND s cd => :4
            STRLEN s => :4
            STRLEN nothing => :0
            GET s => abcd
            TYPE s => +string
            TYPE nothing => +none
            SET  x => -ERR a key must not be empty
            SADD set  => -ERR a member must not be empty
            HSET hash  x => -ERR a field must not be empty
            KEYS  => []
            DEL  => :0
            SELECT 0 => +OK
            SELECT 1 => -ERR DB index is out of range
            DBSIZE => :4",
        )
        .await;
    let long = "x".repeat(20 << 10);
    assert_eq!(client.ask(&format!("SET long {long}")).await, "+OK");
    assert_eq!(client.ask("STRLEN long").await, ":20480");
    assert_eq!(client.ask("GET long").await, long);
    server.node.stop().await;
}

#[tokio::test]
async fn values_expire() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client
        .check(
            "TTL a => :-2
            SET a 1 EX 100 => +OK
            TTL a => :100
            SET a 2 KEEPTTL => +OK
            TTL a => :100
            PERSIST a => :1
            PERSIST a => :0
            TTL a => :-1
            EXPIRE a 100 => :1
            TTL a => :100
            SET a 3 => +OK
            TTL a => :-1
            EXPIRE a 100 XX => :0
            EXPIRE a 100 GT => :0
            EXPIRE a 100 NX => :1
            EXPIRE a 200 NX => :0
            EXPIRE a 50 GT => :0
            EXPIRE a 50 XX LT => :1
            PEXPIRE a 300000 GT XX => :1
            TTL a => :300
            EXPIRE a -1 GT => :0
            PERSIST a => :1
            EXPIRE a 300 LT => :1
            TTL a => :300
            EXPIRE nothing 100 => :0
            EXPIRE a -1 => :1
            GET a => nil
            HSET h f v => :1
            TTL h => :-1
            EXPIRE h 10 => -ERR only plain values expire here, not hashes and sets
            SET b 1 PX 1 => +OK
            PEXPIRE c 1 => :0
            SET c 1 => +OK
            PEXPIRE c 1 => :1",
        )
        .await;
    let pttl = client.ask("PTTL a").await;
    assert_eq!(pttl, ":-2");
    for key in ["b", "c"] {
        let gone = async {
            while client.ask(&format!("GET {key}")).await != "nil" {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.expect("it is gone");
    }
    client.check("INCR c => :1\nPTTL c => :-1\nEXPIRE c 100 => :1\nINCR c => :2\nTTL c => :100").await;
    server.node.stop().await;
}

#[tokio::test]
async fn hashes_and_sets_behave_as_in_redis() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client
        .check(
            "HSET h a 1 b 2 => :2
            HSET h a 3 c 4 => :1
            HGET h a => 3
            HGET h nothing => nil
            HGET nothing a => nil
            HMGET h a nothing c => [3 nil 4]
            HGETALL h => [a 3 b 2 c 4]
            HGETALL nothing => []
            HLEN h => :3
            HINCRBY h a 4 => :7
            HINCRBY h new 1 => :1
            HSET h text x => :1
            HINCRBY h text 1 => -ERR hash value is not an integer
            HDEL h text new nothing => :2
            TYPE h => +hash
            SADD s x y x => :2
            SADD s y z => :1
            SMEMBERS s => [x y z]
            SISMEMBER s x => :1
            SISMEMBER s a => :0
            SCARD s => :3
            SREM s x nothing => :1
            TYPE s => +set
            EXISTS h s => :2",
        )
        .await;
    for command in
        ["GET h", "INCR h", "APPEND s x", "SADD h x", "HSET s a 1", "HGET s a", "SMEMBERS h", "STRLEN h"]
    {
        assert_eq!(client.ask(command).await, WRONG_TYPE, "{command}");
    }
    client
        .check(
            "SET h plain NX => nil
            HGET h a => 7
            SET h plain GET NX => -WRONGTYPE Operation against a key holding the wrong kind of value
            SET h plain XX => +OK
            SET s plain XX EX 100 => +OK
            TTL s => :100
            DEL s => :1
            SADD s x => :1
            GET h => plain
            TYPE h => +string
            DEL h => :1
            HGETALL h => []
            DEL s => :1
            SCARD s => :0",
        )
        .await;
    server.node.stop().await;
}

#[tokio::test]
async fn scans_see_every_key_whatever_is_written_meanwhile() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for number in 0..25 {
        client.send([format!("SET key{number:02} v").as_str()]).await;
        assert_eq!(client.answer().await, "+OK");
    }
    client.check("SADD other:set m => :1\nHSET other:hash a 1 b 2 c 3 => :3").await;
    let (mut cursor, mut seen) = ("0".to_owned(), Vec::new());
    loop {
        let page = client.ask(&format!("SCAN {cursor} MATCH key* COUNT 7")).await;
        let (next, keys) = page[1..page.len() - 2].split_once(" [").unwrap();
        seen.extend(keys.split(' ').map(str::to_owned));
        // Keys that come and go elsewhere change nothing.
        client.check(&format!("SET aaa{cursor} v => +OK")).await;
        cursor = next.to_owned();
        if cursor == "0" {
            break;
        }
    }
    let all: Vec<String> = (0..25).map(|number| format!("key{number:02}")).collect();
    assert_eq!(seen, all);
    client
        .check(
            "SCAN 0 MATCH other:* TYPE set => [0 [other:set]]
            SCAN 0 MATCH => -ERR syntax error
            SCAN 77777 => -ERR invalid cursor: it is none, or so old that it was forgotten; begin again with 0
            KEYS key1[0-2] => [key10 key11 key12]
            KEYS other* => [other:hash other:set]
            HSCAN other:hash 0 => [0 [a 1 b 2 c 3]]
            HSCAN other:hash 0 MATCH [bc] => [0 [b 2 c 3]]",
        )
        .await;
    let page = client.ask("HSCAN other:hash 0 COUNT 2").await;
    let (cursor, fields) = page[1..page.len() - 1].split_once(' ').unwrap();
    assert_eq!(fields, "[a 1 b 2]");
    client.check(&format!("HSCAN other:hash {cursor} COUNT 2 => [0 [c 3]]")).await;
    server.node.stop().await;
}

#[tokio::test]
async fn a_pipeline_is_answered_in_order_and_reads_see_the_writes_before_them() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut commands = Vec::new();
    let mut expected = Vec::new();
    for number in 1..=500 {
        commands.extend([
            format!("SET k {number}"),
            "INCR n".to_owned(),
            format!("HSET h f {number}"),
            format!("SET k{number} {number}"),
        ]);
        expected.extend([
            "+OK".into(),
            format!(":{number}"),
            format!(":{}", i32::from(number == 1)),
            "+OK".into(),
        ]);
        if number % 50 == 0 {
            commands.extend(["GET k".into(), "GET n".into(), "HGET h f".into(), "nonsense".into()]);
            let number = number.to_string();
            expected.extend([number.clone(), number.clone(), number]);
            expected.push("-ERR unknown command 'nonsense', with args beginning with: ".into());
        }
    }
    commands.extend([
        "HSET x f 1".into(),
        "SET x 1 NX".into(),
        "DEL x".into(),
        "SET x 1 NX".into(),
        "SET x 2 XX".into(),
        "SET x 3 NX".into(),
        "GET x".into(),
        "DEL x".into(),
        "SADD x m".into(),
        "GET x".into(),
    ]);
    let answers = [":1", "nil", ":1", "+OK", "+OK", "nil", "2", ":1", ":1", WRONG_TYPE];
    expected.extend(answers.map(str::to_owned));
    // More than are at work together.
    let keys: Vec<String> = (1..=100).map(|number| format!("k{number}")).collect();
    commands.extend([format!("DEL {}", keys.join(" ")), format!("EXISTS {}", keys.join(" "))]);
    expected.extend([":100".into(), ":0".into()]);
    client.send(commands.iter().map(String::as_str)).await;
    for (command, expected) in commands.iter().zip(expected) {
        assert_eq!(client.answer().await, expected, "{command}");
    }
    server.node.stop().await;
}

/// More writes at once than the writer is given, so that they wait for room.
#[tokio::test(flavor = "multi_thread")]
async fn pipelines_of_many_connections_stay_in_order() {
    let server = Server::start().await;
    let at_once = (0..8).map(async |number| {
        let mut client = server.client().await;
        let lines: Vec<String> =
            (0..1000).flat_map(|step| [format!("SET k{number} {step}"), format!("INCR n{number}")]).collect();
        let ends = [format!("GET k{number}")];
        client.send(lines.iter().chain(&ends).map(String::as_str)).await;
        for step in 1..=1000 {
            assert_eq!(client.answer().await, "+OK");
            assert_eq!(client.answer().await, format!(":{step}"));
        }
        assert_eq!(client.answer().await, "999");
    });
    futures::future::join_all(at_once).await;
    server.node.stop().await;
}

#[tokio::test]
async fn the_newer_protocol_has_maps_sets_nulls_and_messages() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.check("HSET h a 1 => :1\nSADD s m => :1").await;
    client.send(["HELLO 3"]).await;
    assert!(matches!(client.answer3().await, Frame3::Map { .. }));
    client.send(["HGETALL h", "SMEMBERS s", "GET nothing", "SUBSCRIBE c", "GET h", "PUBLISH c hi"]).await;
    assert!(matches!(client.answer3().await, Frame3::Map { data, .. } if data.len() == 1));
    assert!(matches!(client.answer3().await, Frame3::Set { data, .. } if data.len() == 1));
    assert!(matches!(client.answer3().await, Frame3::Null));
    assert!(matches!(client.answer3().await, Frame3::Push { .. }));
    assert!(matches!(client.answer3().await, Frame3::SimpleError { .. }), "commands go on while it listens");
    assert!(matches!(client.answer3().await, Frame3::Number { data: 1, .. }));
    assert!(matches!(client.answer3().await, Frame3::Push { data, .. } if data.len() == 3));
    server.node.stop().await;
}

#[tokio::test]
async fn messages_reach_names_and_patterns() {
    let server = Server::start().await;
    let (mut listener, mut speaker) = (server.client().await, server.client().await);
    assert_eq!(listener.ask("SUBSCRIBE news sport").await, "[subscribe news :1]");
    assert_eq!(listener.answer().await, "[subscribe sport :2]");
    assert_eq!(listener.ask("PSUBSCRIBE n*").await, "[psubscribe n* :3]");
    assert!(listener.ask("GET a").await.starts_with("-ERR Can't execute 'get'"));
    assert_eq!(listener.ask("PING").await, "[pong ]");
    speaker.check("PUBLISH news hello => :2\nPUBLISH other x => :0\nPUBLISH sport goal => :1").await;
    assert_eq!(listener.answer().await, "[message news hello]");
    assert_eq!(listener.answer().await, "[pmessage n* news hello]");
    assert_eq!(listener.answer().await, "[message sport goal]");
    assert_eq!(listener.ask("UNSUBSCRIBE news").await, "[unsubscribe news :2]");
    assert_eq!(listener.ask("UNSUBSCRIBE").await, "[unsubscribe sport :1]");
    assert_eq!(listener.ask("PUNSUBSCRIBE").await, "[punsubscribe n* :0]");
    assert_eq!(listener.ask("PUNSUBSCRIBE").await, "[punsubscribe nil :0]");
    assert_eq!(listener.ask("PING").await, "+PONG");
    speaker.check("PUBLISH news hello => :0").await;
    let long = format!("PUBLISH news {}", "x".repeat(17 << 10));
    assert!(speaker.ask(&long).await.starts_with("-ERR the message and its channel are longer than"));
    server.node.stop().await;
}

#[tokio::test]
async fn hostile_bytes_end_their_connection_and_no_other() {
    let server = Server::start().await;
    let mut good = server.client().await;
    for (bytes, words) in [
        (&b"*1\r\n$99999999\r\n"[..], "-ERR Protocol error: invalid bulk length"),
        (b"*99999999\r\n", "-ERR Protocol error: invalid multibulk length"),
        (b"*1\r\n!x\r\n", "-ERR Protocol error: expected '$', got '!'"),
        (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", "-ERR Protocol error: this is no web server"),
        (b"QUIT\r\n", "+OK"),
    ] {
        let mut bad = server.client().await;
        bad.stream.write_all(bytes).await.unwrap();
        assert_eq!(bad.last_words().await, words);
    }
    good.stream.write_all(b"PING\r\n").await.unwrap();
    assert_eq!(good.answer().await, "+PONG");
    server.node.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_late_gets_every_answer() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let value = "v".repeat(16 << 10);
    client.check(&format!("SET k {value} => +OK")).await;
    // More than the sockets hold: the node waits for the client, and others do not wait for that.
    let asked = 1500;
    client.send(std::iter::repeat_n("GET k", asked)).await;
    assert_eq!(server.client().await.ask("PING").await, "+PONG");
    for _ in 0..asked {
        assert_eq!(client.answer().await.len(), value.len());
    }
    server.node.stop().await;
}

#[tokio::test]
async fn who_comes_when_all_places_are_taken_is_told_so() {
    let server = Server::start().await;
    let mut others = Vec::new();
    for _ in 0..256 {
        others.push(server.stranger().await);
    }
    assert_eq!(server.stranger().await.last_words().await, "-ERR max number of clients reached");
    drop(others);
    let admitted = async {
        loop {
            let mut client = server.stranger().await;
            client.send(["PING"]).await;
            let _ = client.stream.read_buf(&mut client.arrived).await;
            if client.arrived.starts_with(b"-NOAUTH") {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, admitted).await.expect("places become free");
    server.node.stop().await;
}

#[tokio::test]
async fn there_is_no_port_unless_it_is_asked_for_and_a_taken_one_is_an_error() {
    let server = Server::start().await;
    let layer = Layer {
        memory: MemoryLayer { redis: Some(server.port), ..MemoryLayer::default() },
        ..Layer::default()
    };
    let refused = start_as(&tempfile::tempdir().unwrap(), None, layer).await.unwrap_err();
    assert!(matches!(refused, StartError::Redis { port, .. } if port == server.port), "{refused}");
    server.node.stop().await;
    let quiet = TestNode::start().await;
    assert!(!quiet.client().workers().await.unwrap().iter().any(|worker| worker.name == "redis"));
    quiet.stop().await;
}

#[tokio::test]
async fn what_clients_ask_about_the_server_is_answered() {
    let server = Server::start().await;
    let mut client = server.client().await;
    assert!(client.ask("INFO").await.contains("redis_version:"));
    assert!(client.ask("COMMAND").await.contains("[set :-3 [+write] :1 :1 :1]"));
    assert_eq!(client.ask("COMMAND DOCS").await, "[]");
    assert!(client.ask("COMMAND LIST").await.starts_with("[append auth "));
    client
        .check(
            "COMMAND INFO get nothing => [[get :2 [+readonly] :1 :1 :1] nil]
            COMMAND GETKEYS MSET a 1 b 2 => [a b]
            COMMAND GETKEYS DEL a b => [a b]
            COMMAND GETKEYS GET a => [a]
            COMMAND GETKEYS PING => -ERR The command has no key arguments
            COMMAND GETKEYS GET => -ERR Invalid number of arguments specified for command
            COMMAND GETKEYS nothing => -ERR Invalid command specified
            COMMAND NONSENSE => -ERR unknown subcommand 'NONSENSE' of 'command'",
        )
        .await;
    let mut other = server.client().await;
    assert_ne!(client.ask("CLIENT ID").await, other.ask("CLIENT ID").await);
    client
        .check(
            "CLIENT GETNAME => nil
            CLIENT SETNAME worker-1 => +OK
            CLIENT GETNAME => worker-1
            CLIENT SETNAME ä => -ERR Client names cannot contain spaces, newlines or special characters.
            CLIENT SETINFO lib-name redis-py => +OK
            CLIENT KILL x => -ERR unknown subcommand 'KILL' of 'client'
            CLIENT SETNAME => -ERR wrong number of arguments for 'client' command",
        )
        .await;
    assert!(other.ask("HELLO 2 SETNAME me").await.contains("proto :2"));
    assert_eq!(other.ask("CLIENT GETNAME").await, "me");
    let count: usize = client.ask("COMMAND COUNT").await[1..].parse().unwrap();
    assert_eq!(client.ask("COMMAND LIST").await.split(' ').count(), count);
    let unknown = client.ask("CONFIG GET save").await;
    assert_eq!(unknown, "-ERR unknown command 'CONFIG', with args beginning with: 'GET' 'save' ");
    server.node.stop().await;
}
