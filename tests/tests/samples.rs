//! The sample programs in six languages, run by a node as modules and as components, against the same work done here.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skipped"
)]

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use starfish_tests::{Chance, Node, Output, Swarm, as_component, built_samples, wait_until};

/// A sample as it was built, a module; none where its compiler is not there, which is said.
fn module(swarm: &Swarm, name: &str) -> Option<String> {
    let Ok(module) = fs::read(built_samples(env!("CARGO_TARGET_TMPDIR")).join(name).with_extension("wasm"))
    else {
        println!("skipped: {name} is not built here");
        return None;
    };
    Some(swarm.scratch().write(&format!("{name}.wasm"), module))
}

/// The same, and as a component.
fn programs(swarm: &Swarm, name: &str) -> Vec<String> {
    let Some(path) = module(swarm, name) else { return Vec::new() };
    let component = as_component(&fs::read(&path).unwrap());
    vec![path, swarm.scratch().write(&format!("{name}-component.wasm"), component)]
}

/// `starfish run PROGRAM WORDS...`
fn run(node: &Node, program: &str, words: &[&str], input: impl Into<Vec<u8>>) -> Output {
    node.feed([&["run", program][..], words].concat(), input)
}

/// A text of many lines, with words that are and are not in every one.
fn text() -> String {
    let mut chance = Chance::new("a text for the samples");
    let words = ["tide", "Reef", "coral", "sand", "  ", "\t", "kelp", "Crab", "héron"];
    let mut text = String::new();
    for _ in 0..20_000 {
        for _ in 0..chance.below(9) {
            text += words[chance.below(words.len())];
            text += if chance.below(3) == 0 { "" } else { " " };
        }
        text += "\n";
    }
    text
}

#[test]
fn words_are_counted_in_c() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let text = text();
    let words = text.split_ascii_whitespace().count();
    let counts = format!("{} {words} {}", text.lines().count(), text.len());
    node.feed(["put", "-", "/texts/reef.txt"], text.clone()).ok();
    for program in programs(&swarm, "wordcount") {
        assert_eq!(run(node, &program, &[], text.clone()).ok(), format!("{counts}\n"));
        let granted = node.run(["run", "--dir", "/texts:ro", &program, "/texts/reef.txt"]).ok();
        assert_eq!(granted, format!("{counts} /texts/reef.txt\n"));
        let missing = node.run(["run", &program, "/texts/reef.txt"]);
        assert_eq!(missing.code, 1, "it reads what it was not granted");
        assert!(missing.stderr.contains("/texts/reef.txt: "), "{}", missing.stderr);
    }
}

#[test]
fn a_counter_in_c_counts_in_the_memory_of_the_swarm() {
    let swarm = Swarm::start(2);
    let Some(program) = module(&swarm, "counter") else { return };
    let count = |node: usize, words: &[&str]| {
        swarm.node(node).run([&["run", "--grant", "mem:counters", &program][..], words].concat())
    };
    assert_eq!(count(0, &["apples"]).ok(), "1\n");
    assert_eq!(count(0, &["pears", "40"]).ok(), "40\n");
    assert_eq!(swarm.node(0).ok(["mem", "--space", "counters", "get", "apples"]), "1\n");
    wait_until("the other node knows the count", || {
        swarm.node(1).run(["mem", "--space", "counters", "get", "pears"]).stdout == b"40\n"
    });
    assert_eq!(count(1, &["pears", "2"]).ok(), "42\n");
    assert_eq!(count(1, &[]).ok(), "       1 apples\n      42 pears\n");
    let denied = swarm.node(0).run(["run", "--grant", "mem:others", &program, "apples"]);
    assert_eq!(denied.code, 1);
    assert!(denied.stderr.contains("--grant mem:counters"), "{}", denied.stderr);
    let refused = swarm.node(0).run(["run", &program, "apples"]);
    assert!(refused.stderr.contains("it asks for wasi:keyvalue/"), "{}", refused.stderr);
}

#[test]
fn a_handler_in_zig_answers_requests_and_counts_them() {
    let swarm = Swarm::start(2);
    let Some(program) = module(&swarm, "hits") else { return };
    swarm.node(0).ok(["deploy", "--grant", "mem:hits", "--http", "/hits", "hits", &program]);
    for (path, answer) in [("/hits/a", "1 /a"), ("/hits/a?b=c", "1 /a?b=c"), ("/fn/hits/a", "2 /a")] {
        let answered = swarm.node(0).request("GET", path).send();
        assert_eq!(answered.status, 200, "{answered:?}");
        assert!(answered.body.contains(answer), "{answered:?}");
    }
    wait_until("the other node knows the function and the count", || {
        swarm.node(1).request("GET", "/hits/only/here").send().body.contains("/only/here")
            && swarm.node(1).run(["mem", "--space", "hits", "get", "/a"]).stdout == b"2\n"
    });
    assert!(swarm.node(1).request("GET", "/hits/a").send().body.contains("3 /a"));
}

#[test]
fn lines_are_found_in_rust() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    let text = text();
    let lines = |keep: &dyn Fn(&str) -> bool| -> String {
        text.lines().filter(|line| keep(line)).map(|line| format!("{line}\n")).collect()
    };
    for program in programs(&swarm, "grep") {
        let search = |words: &[&str]| run(node, &program, words, text.clone());
        assert_eq!(search(&["héron"]).ok(), lines(&|line| line.contains("héron")));
        assert_eq!(search(&["-v", "tide"]).ok(), lines(&|line| !line.contains("tide")));
        let reefs = text.lines().filter(|line| line.to_lowercase().contains("reef")).count();
        assert_eq!(search(&["-i", "-c", "REEF"]).ok(), format!("{reefs}\n"));
        assert_eq!(search(&["whale"]).code, 1);
    }
}

/// The pixels of a PNG in 8-bit RGBA, with its width.
fn decoded(png: &[u8]) -> (u32, Vec<u8>) {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
    decoder.set_transformations(png::Transformations::normalize_to_color8() | png::Transformations::ALPHA);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(info.color_type, png::ColorType::Rgba);
    (info.width, pixels)
}

#[test]
fn images_are_made_smaller_in_go() {
    const WIDTH: u32 = 96;
    const HEIGHT: u32 = 64;
    let swarm = Swarm::start(1);
    let mut chance = Chance::new("an image for the samples");
    let pixels = chance.bytes((WIDTH * HEIGHT * 3) as usize);
    let mut image = Vec::new();
    let mut encoder = png::Encoder::new(&mut image, WIDTH, HEIGHT);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();

    // Into 24 by 24 it fits as 24 by 16, so that each pixel is the mean of four by four.
    let mean = |x: u32, y: u32, channel: u32| {
        let covered = (0..16).map(|n| ((y * 4 + n / 4) * WIDTH + x * 4 + n % 4) * 3 + channel);
        covered.map(|at| f64::from(pixels[at as usize])).sum::<f64>() / 16.0
    };
    // Not as a component: Go takes all memory behind its own for its own, and the adapter's lies there.
    if let Some(program) = module(&swarm, "thumbnail") {
        let made = run(swarm.node(0), &program, &["24", "24"], image.clone());
        assert_eq!(made.code, 0, "{}", made.stderr);
        let (width, small) = decoded(&made.stdout);
        assert_eq!((width, small.len()), (24, 24 * 16 * 4));
        for (at, pixel) in (0..).zip(small.chunks(4)) {
            for channel in 0..3 {
                let wanted = mean(at % 24, at / 24, channel);
                let is = f64::from(pixel[channel as usize]);
                assert!((is - wanted).abs() <= 1.0, "pixel {at}: {is} is not {wanted}");
            }
            assert_eq!(pixel[3], 255);
        }
        assert_eq!(run(swarm.node(0), &program, &["24", "24"], "no image").code, 1);
    }
}

#[test]
fn a_tile_of_the_mandelbrot_set_is_drawn_in_zig() {
    const PIXELS: u32 = 64;
    const STEPS: u32 = 500;
    let shade = |x: f64, y: f64| {
        let (mut re, mut im) = (0.0, 0.0);
        for step in 0..STEPS {
            if re * re + im * im > 4.0 {
                return 255 - (step % 255) as u8;
            }
            (re, im) = (re * re - im * im + x, 2.0 * re * im + y);
        }
        0
    };
    let swarm = Swarm::start(1);
    let (left, top, side) = (-0.8, 0.2, 0.125);
    let mut wanted = format!("P5\n{PIXELS} {PIXELS}\n255\n").into_bytes();
    for at in 0..PIXELS * PIXELS {
        let pitch = side / f64::from(PIXELS);
        wanted.push(shade(left + pitch * f64::from(at % PIXELS), top - pitch * f64::from(at / PIXELS)));
    }
    for program in programs(&swarm, "mandelbrot") {
        let words = ["-0.8", "0.2", "0.125", "64", "500"];
        let made = swarm.node(0).run([&["run", &program][..], &words].concat());
        assert_eq!((made.code, made.stdout == wanted), (0, true), "{}", made.stderr);
    }
}

#[test]
fn primes_are_searched_in_wat() {
    const END: usize = 20_000;
    let mut sieve = vec![true; END];
    for n in 2..END {
        if sieve[n] {
            (n * n..END).step_by(n).for_each(|multiple| sieve[multiple] = false);
        }
    }
    let from = |start: usize| -> String {
        (start.max(2)..END).filter(|n| sieve[*n]).map(|n| format!("{n}\n")).collect()
    };
    let swarm = Swarm::start(1);
    for program in programs(&swarm, "primes") {
        for start in [0, 3, 19_000] {
            let found = run(swarm.node(0), &program, &[&start.to_string(), &END.to_string()], "");
            assert_eq!(found.ok(), from(start));
        }
        assert_eq!(run(swarm.node(0), &program, &["100"], "").code.signum(), 1, "it takes two words");
    }
}

#[test]
fn documents_are_laid_out_in_assemblyscript() {
    let swarm = Swarm::start(1);
    let mut chance = Chance::new("a document for the samples");
    let entry = |chance: &mut Chance| {
        let fields = [
            ("name", Value::from(format!("\"{}\" \\ [é] {{,:}}", chance.number()))),
            ("depth", Value::from(chance.below(1000))),
            ("empty", serde_json::json!([{}, [], "", null, true])),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<BTreeMap<_, _>>()
    };
    let document: Vec<_> = (0..5000).map(|_| entry(&mut chance)).collect();
    let wanted = serde_json::to_string_pretty(&document).unwrap() + "\n";
    for program in programs(&swarm, "json") {
        let short = serde_json::to_string(&document).unwrap();
        assert!(run(swarm.node(0), &program, &[], short).ok() == wanted, "it lays out otherwise");
        for broken in ["", "[1, 2", "[}", "{\"a\": \"b}"] {
            assert_eq!(run(swarm.node(0), &program, &[], broken).code, 1, "{broken}");
        }
    }
}

#[test]
fn files_of_the_tree_are_listed_moved_and_written_in_c() {
    let swarm = Swarm::start(1);
    let node = swarm.node(0);
    for (number, program) in (0..).zip(programs(&swarm, "shelve")) {
        let folder = format!("/in-{number}");
        node.ok(["mkdir", &folder, &format!("{folder}/txt")]);
        for file in ["b.txt", "a.txt", "photo.png", "README"] {
            node.feed(["put", "-", &format!("{folder}/{file}")], format!("this is {file}\n")).ok();
        }
        node.run(["run", "--dir", &folder, &program, &folder]).ok();
        let index = "       4 files\nother/README\ntxt/a.txt\ntxt/b.txt\npng/photo.png\n";
        wait_until("the index is in the tree", || {
            node.run(["cat", &format!("{folder}/index.txt")]).stdout == index.as_bytes()
        });
        assert_eq!(node.ok(["cat", &format!("{folder}/png/photo.png")]), "this is photo.png\n");
        assert_eq!(node.ok(["ls", &folder]), "index.txt\nother\npng\ntxt\n");
        let refused = node.run(["run", "--dir", &format!("{folder}:ro"), &program, &folder]);
        assert_eq!(refused.code, 1, "it changes what it may only read");
    }
}
