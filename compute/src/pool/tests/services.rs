//! Components that answer HTTP requests.

use super::*;

/// A handler that does this, and does not respond.
fn silent(body: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "wasi:http/incoming-handler@0.2.0#handle") (param i32 i32) {body}))"#
    );
    wat::parse_str(module).unwrap()
}

/// What came of one request.
struct Answered {
    end: RunEnd,
    head: Option<ResponseHead>,
    body: Vec<u8>,
}

impl Fixture {
    async fn ask(&self, order: &Order, path: &str, parts: Vec<Bytes>) -> Answered {
        let mut worker = self.pool.take(Profile::Usual).await.unwrap();
        let request = RequestHead {
            method: "POST".to_owned(),
            uri: path.to_owned(),
            headers: vec![("host".to_owned(), b"node".to_vec())],
        };
        let (stdin, given) = mpsc::channel(parts.len().max(1));
        for part in parts {
            stdin.try_send(part).unwrap();
        }
        drop(stdin);
        let (respond, head) = oneshot::channel();
        let (output, mut said) = mpsc::channel(4);
        let collect = async {
            let mut body = Vec::new();
            while let Some(frame) = said.recv().await {
                if let OutputFrame::Stdout(bytes) = frame {
                    body.extend_from_slice(&bytes);
                }
            }
            body
        };
        let answering = async {
            let end = worker.answer(order, request, given, respond, &output).await;
            drop(output);
            end
        };
        let (end, body) = tokio::join!(answering, collect);
        if matches!(end, RunEnd::Ended(..)) {
            self.pool.give_back(worker);
        }
        Answered { end, head: head.await.ok(), body }
    }
}

#[track_caller]
fn outcome(answered: &Answered) -> &Outcome {
    match &answered.end {
        RunEnd::Ended(outcome, _) => outcome,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_service_answers_a_request() {
    let fixture = Fixture::new();
    let order = fixture.order_of("echo", sample("service")).await.unwrap();
    for (n_parts, size) in [(0, 0), (1, 1), (3, 1000), (10, 60_000)] {
        let parts = vec![Bytes::from(vec![b'x'; size]); n_parts];
        let answered = fixture.ask(&order, "/deep/path?with=query", parts).await;
        assert_eq!(outcome(&answered), &Outcome::Exited(0));
        assert_eq!(answered.head.as_ref().map(|head| head.status), Some(201));
        let wanted = format!("/deep/path?with=query\n{}", "x".repeat(n_parts * size));
        assert!(answered.body == wanted.as_bytes(), "{} bytes", answered.body.len());
    }
    assert_eq!(fixture.pool.started.load(Ordering::Relaxed), 2, "one that compiles and one that serves all");
}

#[tokio::test]
async fn a_service_that_does_not_answer_ends_with_a_name() {
    let fixture = Fixture::new();
    let mut order = fixture.order_of("silent", silent("")).await.unwrap();
    let answered = fixture.ask(&order, "/", Vec::new()).await;
    assert_eq!(outcome(&answered), &Outcome::Failed { reason: "it gave no response".into() });
    order = fixture.order_of("trap", silent("unreachable")).await.unwrap();
    let answered = fixture.ask(&order, "/", Vec::new()).await;
    assert!(matches!(outcome(&answered), Outcome::Trapped { .. }), "{:?}", answered.end);
    order = fixture.order_of("loop", silent("(loop $for_ever (br $for_ever))")).await.unwrap();
    order.timeout_ms = 200;
    let answered = fixture.ask(&order, "/", Vec::new()).await;
    assert_eq!(outcome(&answered), &Outcome::LimitReached { limit: Limit::Time, value: 200 });
    assert_eq!(answered.head, None);
}

#[tokio::test]
async fn a_response_has_the_limit_of_an_output() {
    let fixture = Fixture::new();
    let mut order = fixture.order_of("echo", sample("service")).await.unwrap();
    order.output_bytes = 1000;
    let answered = fixture.ask(&order, "/", vec![Bytes::from(vec![b'x'; 5000])]).await;
    assert_eq!(outcome(&answered), &Outcome::LimitReached { limit: Limit::Output, value: 1000 });
    assert_eq!(answered.body.len(), 1000);
}

#[tokio::test]
async fn a_service_is_no_command_and_a_command_answers_with_what_it_prints() {
    let fixture = Fixture::new();
    let order = fixture.order_of("silent", silent("")).await.unwrap();
    let ran = fixture.run(&order, &[]).await;
    let Outcome::Failed { reason } = ran.outcome() else { panic!("{:?}", ran.end) };
    assert_eq!(reason, "it is not a command: it answers HTTP requests");
    let answered = fixture.ask(&fixture.component_order("upper").await, "/", vec!["body".into()]).await;
    assert_eq!(outcome(&answered), &Outcome::Exited(0));
    assert_eq!((answered.head, &answered.body[..]), (None, &b"BODY"[..]));
}
