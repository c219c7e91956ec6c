//! Components of the world `wasi:cli/command`: the same programs behind the standard adapter, and what only
//! components can ask for.

use super::*;

/// A component that imports `import` and exports a command that does nothing.
fn asking_for(import: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            {import}
            (core module $module (func (export "run") (result i32) i32.const 0))
            (core instance $instance (instantiate $module))
            (func $run (result (result)) (canon lift (core func $instance "run")))
            (instance $command (export "run" (func $run)))
            (export "wasi:cli/run@0.2.6" (instance $command)))"#
    );
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn a_component_reads_writes_and_exits() {
    let fixture = Fixture::new();
    let hello = fixture.run(&fixture.component_order("hello").await, &[]).await;
    assert_eq!((hello.outcome(), &hello.stdout[..]), (&Outcome::Exited(0), &b"hello, swarm\n"[..]));
    let upper = fixture.run(&fixture.component_order("upper").await, &["Star", "fish ", "1\n"]).await;
    assert_eq!((upper.outcome(), &upper.stdout[..]), (&Outcome::Exited(0), &b"STARFISH 1\n"[..]));
    let mut exit = fixture.component_order("exit").await;
    assert_eq!(fixture.run(&exit, &[]).await.outcome(), &Outcome::Exited(0));
    exit.args.extend(["a".to_owned(), "b".to_owned(), "c".to_owned()]);
    // Preview 2 knows of success and failure only.
    assert_eq!(fixture.run(&exit, &[]).await.outcome(), &Outcome::Exited(1));
    let trap = fixture.run(&fixture.component_order("trap").await, &[]).await;
    assert_eq!(trap.outcome(), &Outcome::Trapped { message: "integer divide by zero".into() });
}

#[tokio::test]
async fn a_component_sees_its_folder_and_cannot_write_where_it_may_not() {
    let fixture = Fixture::new();
    let mut worker = fixture.pool.take(Profile::Usual).await.unwrap();
    let host = worker.scratch().join("granted");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("in.txt"), "granted").unwrap();
    let folder = |writable| vec![Folder { host: host.clone(), guest: "/data".into(), writable }];
    let mut cat = fixture.component_order("cat").await;
    assert_eq!(run_in(&mut worker, &cat, &[]).await.outcome(), &Outcome::Exited(1), "nothing was granted");
    cat.folders = folder(false);
    let ran = run_in(&mut worker, &cat, &[]).await;
    assert_eq!((ran.outcome(), &ran.stdout[..]), (&Outcome::Exited(0), &b"granted"[..]));
    let mut write = fixture.component_order("write").await;
    write.folders = folder(false);
    assert_eq!(run_in(&mut worker, &write, &[]).await.outcome(), &Outcome::Exited(1), "read only");
    write.folders = folder(true);
    assert_eq!(run_in(&mut worker, &write, &[]).await.outcome(), &Outcome::Exited(0));
    assert_eq!(std::fs::read(host.join("out.txt")).unwrap(), b"written by a guest\n");
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named() {
    let fixture = Fixture::new();
    let mut order = fixture.component_order("cat").await;
    let host = "/nowhere".into();
    order.folders = vec![Folder { host, guest: "/data/books".into(), writable: false }];
    let ran = fixture.run(&order, &[]).await;
    let Outcome::Failed { reason } = ran.outcome() else { panic!("{:?}", ran.outcome()) };
    assert!(reason.starts_with("its folder /data/books cannot be opened"), "{reason}");
}

#[tokio::test]
async fn what_a_component_is_not_granted_is_named_before_it_runs() {
    let fixture = Fixture::new();
    let asked = [
        ("wasi:sockets/tcp-create-socket@0.2.6", "create-tcp-socket"),
        ("wasi:sockets/udp-create-socket@0.2.0", "create-udp-socket"),
        ("wasi:sockets/instance-network@0.2.0", "instance-network"),
        ("wasi:sockets/ip-name-lookup@0.2.0", "resolve-addresses"),
        ("wasi:http/outgoing-handler@0.2.0", "handle"),
        ("acme:missiles/silo@1.0.0", "launch"),
    ];
    for (interface, function) in asked {
        let import = format!(r#"(import "{interface}" (instance (export "{function}" (func))))"#);
        let refused = fixture.refusal(asking_for(&import)).await;
        assert_eq!(refused, format!("it asks for {interface}, which is not granted to tasks"));
    }
    let wrong = r#"(import "wasi:cli/environment@0.2.0" (instance (export "get-arguments" (func))))"#;
    let refused = fixture.refusal(asking_for(wrong)).await;
    assert!(refused.contains("wasi:cli/environment@0.2.0"), "{refused}");
}

#[tokio::test]
async fn what_works_on_sockets_is_harmless_where_there_are_none() {
    let fixture = Fixture::new();
    let socket =
        r#"(import "wasi:sockets/tcp@0.2.0" (instance (export "tcp-socket" (type (sub resource)))))"#;
    let order = fixture.order_of("libc", asking_for(socket)).await.unwrap();
    assert_eq!(fixture.run(&order, &[]).await.outcome(), &Outcome::Exited(0));
}

#[tokio::test]
async fn a_component_of_too_many_parts_is_refused() {
    let fixture = Fixture::new();
    let memories =
        "(core module $memory (memory 1))".to_owned() + &"(core instance (instantiate $memory))".repeat(17);
    let refused = fixture.refusal(asking_for(&memories)).await;
    assert!(refused.contains("memories"), "{refused}");
}
