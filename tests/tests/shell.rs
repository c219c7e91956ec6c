//! The shell on a running node: built-ins, programs of the tree, and pipes between them.

use starfish_tests::{Output, Swarm, wait_until};

#[test]
fn built_ins_and_programs_of_the_tree_work_together() {
    let swarm = Swarm::start(2);
    let node = swarm.node(0);
    let shell = |line: &str| -> Output { node.run(["-c", line]) };
    node.ok(["mkdir", "/bin"]);
    node.ok(["put", &swarm.scratch().guest("upper"), "/bin/upper.wasm"]);
    node.ok(["put", &swarm.scratch().guest("exit"), "/bin/exit.wasm"]);

    // Through pipes into the tree, and out of it on the other node.
    shell("mkdir -p /logs; echo 'a line' > /logs/a; echo 'another' >> /logs/a").ok();
    shell("cat /logs/a | /bin/upper.wasm > /out").ok();
    assert_eq!(shell("cat /out | wc -l; cat /out").ok(), "2\nA LINE\nANOTHER\n");
    wait_until("the other node has it", || {
        swarm.node(1).run(["-c", "cat /out"]).stdout == b"A LINE\nANOTHER\n"
    });

    // Words, loops, conditions, statuses.
    assert_eq!(
        shell("for i in 1 2 3; do echo $i > /logs/$i; done; cd /logs; ls; pwd").ok(),
        "1\n2\n3\na\n/logs\n"
    );
    assert_eq!(shell("cat /logs/[12] | sort -r").ok(), "2\n1\n");
    assert_eq!(shell("/bin/exit.wasm x y; echo $?; false || echo fallen back").ok(), "2\nfallen back\n");
    assert_eq!(shell("/bin/exit.wasm one two three").code, 3);
    assert_eq!(shell("no-such-command").code, 127);
    assert_eq!(shell("echo 'not ended").code, 2);

    // The verbs are words, too.
    assert_eq!(shell("mem set a 1; mem incr visits; x=$(mem get a); echo \"<$x>\"").ok(), "1\n<1>\n");
    assert_eq!(shell("peers --json | grep -c '\"id\"'").ok(), "1\n");

    let script = swarm.scratch().write("script", "echo \"$1 of $#\"\nexit 7\n");
    let output = node.run(["shell", &script, "first", "second"]);
    assert_eq!((output.text(), output.code), ("first of 2\n", 7));
}
