//! One line a behaviour: a script, what it prints, its status.

use super::Fixture;

/// Runs each script in a fresh shell.
async fn check(cases: &[(&str, &str, i32)]) {
    for (script, stdout, status) in cases {
        let ran = Fixture::new().await.run(script).await;
        assert_eq!((ran.stdout.as_str(), ran.status), (*stdout, *status), "{script}\nstderr: {}", ran.stderr);
    }
}

#[tokio::test]
async fn words_are_quoted_split_and_expanded() {
    check(&[
        ("echo a  b 'c  d' \"e  f\"", "a b c  d e  f\n", 0),
        ("x='a  b'; echo $x \"$x\"", "a b a  b\n", 0),
        ("x=1; echo \"$x\" '$x' \\$x ${x}2", "1 $x $x 12\n", 0),
        ("echo ${no:-fall back} ${no-x} ${no:+y}.", "fall back x .\n", 0),
        ("echo ${a:=b} $a", "b b\n", 0),
        ("f=/a/b.tar.gz; echo ${f##*/} ${f%.*} ${f%%.*} ${f#/}", "b.tar.gz /a/b.tar /a/b a/b.tar.gz\n", 0),
        (
            "x=hello; echo ${#x} ${x:1:3} ${x/l/L} ${x//l/L} ${x^} ${x^^}",
            "5 ell heLlo heLLo Hello HELLO\n",
            0,
        ),
        ("echo {a,b}{1..3}", "a1 a2 a3 b1 b2 b3\n", 0),
        ("echo $((2 + 3 * 4)) $(( (1 << 4) % 7 )); x=5; echo $((x++ + x)) $x", "14 2\n11 6\n", 0),
        ("echo \"$(echo a; echo b)\" `echo c`", "a\nb c\n", 0),
        ("echo $'a\\tb'", "a\tb\n", 0),
        ("set -- a 'b c'; echo $# \"$2\"; for x in \"$@\"; do echo \"<$x>\"; done", "2 b c\n<a>\n<b c>\n", 0),
        ("set --; for x in \"$@\"; do echo never; done; echo \"[$*]\"", "[]\n", 0),
        ("IFS=:; x=a:b::c; for y in $x; do echo \"<$y>\"; done", "<a>\n<b>\n<>\n<c>\n", 0),
        ("echo ~ ~/x", "/ //x\n", 0),
        ("echo a # a comment", "a\n", 0),
    ])
    .await;
}

#[tokio::test]
async fn control_flow() {
    check(&[
        ("true && echo yes || echo no", "yes\n", 0),
        ("false && echo yes || echo no", "no\n", 0),
        ("! false; echo $?", "0\n", 0),
        ("false; echo $?; true; echo $?", "1\n0\n", 0),
        ("if false; then echo a; elif true; then echo b; else echo c; fi", "b\n", 0),
        ("for x in 1 2 3; do [ $x = 2 ] && continue; echo $x; done", "1\n3\n", 0),
        ("i=0; while [ $i -lt 3 ]; do i=$((i+1)); done; echo $i", "3\n", 0),
        ("until false; do break; done; echo $?", "0\n", 0),
        ("for a in 1 2; do for b in 1 2; do break 2; done; echo never; done; echo end", "end\n", 0),
        ("for ((i = 0; i < 3; i++)); do echo $i; done", "0\n1\n2\n", 0),
        ("case abc in x) echo x;; a*|b*) echo ab;; *) echo other;; esac", "ab\n", 0),
        ("f() { echo \"$1 in f\"; return 3; }; f hi; echo $?", "hi in f\n3\n", 0),
        ("x=out; f() { local x=in; echo $x; }; f; echo $x", "in\nout\n", 0),
        ("(cd /bin; x=1; pwd); pwd; echo \"[$x]\"", "/bin\n/\n[]\n", 0),
        ("{ echo a; echo b; } | tail -n 1", "b\n", 0),
        ("set -e; false; echo never", "", 1),
        ("set -e; if false; then :; fi; false || true; ! true; echo on", "on\n", 0),
        ("set -o pipefail; false | true; echo $?; set +o pipefail; false | true; echo $?", "1\n0\n", 0),
        ("exit 7; echo never", "", 7),
        ("echo a; (exit 3); echo $?", "a\n3\n", 0),
        ("[[ abc == a* && ! x == y && abc =~ ^a.c$ ]] && echo yes", "yes\n", 0),
        ("test -d /bin && test -f /bin/upper.wasm && test ! -e /no && echo yes", "yes\n", 0),
        ("eval 'x=1; echo $x'", "1\n", 0),
        ("f() { [ $1 -eq 0 ] && return; f $(($1 - 1)); x=$1; }; f 150; echo $x", "150\n", 0),
        ("x=5 eval 'echo $x'; echo \"[$x]\"", "5\n[]\n", 0),
    ])
    .await;
}

#[tokio::test]
async fn redirections() {
    check(&[
        ("echo a > /f; echo b >> /f; cat < /f", "a\nb\n", 0),
        ("echo a > /f; sort /f > /f; cat /f", "a\n", 0),
        ("ls /no > /f 2>&1; cat /f", "ls: /no: no such file or directory\n", 0),
        ("ls /no 2> /dev/null; echo $?", "4\n", 0),
        ("{ echo out; echo err >&2; } &> /f; cat /f", "out\nerr\n", 0),
        ("cat <<E\na $((1+1))\nE\ncat <<'E'\n$x\nE", "a 2\n$x\n", 0),
        ("cat <<< \"a b\"", "a b\n", 0),
        ("for x in 1 2; do echo $x; done > /f; cat /f", "1\n2\n", 0),
        ("printf 'a b\\nc d\\n' | while read x y; do echo \"$y $x\"; done", "b a\nd c\n", 0),
        ("printf '1\\n2\\n' > /f; { read a; read b; } < /f; echo $a $b", "1 2\n", 0),
        ("echo x > /no/f; echo $?", "4\n", 0),
        ("> /f; wc -c < /f", "0\n", 0),
        ("echo a | tee /f | cat - /f | wc -l > /n; cat /f", "a\n", 0),
    ])
    .await;
}

#[tokio::test]
async fn globs_see_the_tree() {
    let setup = "mkdir -p /d/sub; touch /d/a.txt /d/b.txt /d/.hidden '/d/c d.txt' /d/sub/e.txt; ";
    for (script, stdout) in [
        ("echo /d/*.txt", "/d/a.txt /d/b.txt /d/c d.txt\n"),
        ("cd /d; echo * */*", "a.txt b.txt c d.txt sub sub/e.txt\n"),
        ("echo /d/.h* /d/[ab].txt /d/?.txt", "/d/.hidden /d/a.txt /d/b.txt /d/a.txt /d/b.txt\n"),
        ("echo /d/*/ '/d/*' /d/none*", "/d/sub/ /d/* /d/none*\n"),
        ("x='/d/*.txt'; echo \"$x\"; for f in $x; do echo \"$f\"; done | wc -l", "/d/*.txt\n3\n"),
        ("set -f; echo /d/*", "/d/*\n"),
    ] {
        let ran = Fixture::new().await.run(&format!("{setup}{script}")).await;
        assert_eq!(ran.stdout, stdout, "{script}\nstderr: {}", ran.stderr);
    }
}

#[tokio::test]
async fn commands_are_found_in_order() {
    check(&[
        ("peers --json", "[\"peers\", \"--json\"] from /\n", 0),
        ("echo hello | /bin/upper.wasm", "HELLO\n", 0),
        ("echo hello | upper | cat > /out; cat /out", "HELLO\n", 0),
        ("cd /bin; echo hello | ./upper.wasm", "HELLO\n", 0),
        ("exit.wasm 42", "", 42),
        ("FOO=bar env | grep FOO; env | grep -c FOO", "FOO=bar\n0\n", 1),
        ("export A=1; B=2; env | grep -E '^(A|B)='", "A=1\n", 0),
        ("ls() { echo mine; }; ls; command ls -d /bin", "mine\n/bin\n", 0),
        ("echo '#!/bin/starfish sh\necho script $0 $1' > /s; /s arg", "script /s arg\n", 0),
        ("echo 'y=set' > /s; . /s; echo $y", "set\n", 0),
        ("echo '#!sh\n/s' > /s; /s", "", 1),
        ("no-such-command", "", 127),
        ("/bin", "", 126),
        ("echo data > /f; /f", "", 126),
        ("printf '\\x00asm' > /bin/odd.wasm; odd", "", 125),
        ("type cd peers upper", "cd is built in\npeers is a verb of the node\nupper is /bin/upper.wasm\n", 0),
        ("ls --no-such-flag", "", 2),
    ])
    .await;
}

#[tokio::test]
async fn what_is_not_supported_is_named() {
    for (script, named) in [
        ("sleep 1 &", "background jobs"),
        ("a=(1 2)", "arrays"),
        ("cat <(ls)", "process substitution"),
        ("trap x EXIT", "trap"),
        ("echo ${!x}", "this form of ${...}"),
        ("echo a 3> /f", "descriptor 3"),
    ] {
        let ran = Fixture::new().await.run(script).await;
        assert_eq!(ran.status, 2, "{script}");
        assert!(
            ran.stderr.contains(named) && ran.stderr.contains("not supported"),
            "{script}: {}",
            ran.stderr
        );
    }
}

#[tokio::test]
async fn mistakes_end_and_are_told() {
    for (script, status, told) in [
        ("echo 'open", 2, "unterminated single quote"),
        ("if true; then", 2, "syntax error"),
        ("set -u; echo $nope; echo never", 1, "nope: unbound variable"),
        ("echo ${nope:?is needed}; echo never", 1, "nope: is needed"),
        ("echo $((1 / 0))", 1, "division by zero"),
        ("x=x; echo $((x))", 1, "without end"),
        ("f() { f; }; f", 1, "levels of commands in commands"),
        ("echo {1..100000000}", 1, "words from braces"),
        ("cd /no", 4, "/no: no such file or directory"),
        ("[ 1 -eq x ]", 2, "a number was expected"),
    ] {
        let ran = Fixture::new().await.run(script).await;
        assert_eq!((ran.stdout.as_str(), ran.status), ("", status), "{script}: {}", ran.stderr);
        assert!(ran.stderr.contains(told), "{script}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn files_of_the_tree() {
    check(&[
        ("mkdir -p /a/b; touch /a/b/c; ls -1 /a; ls /a/b", "b\nc\n", 0),
        ("echo x > /f; cp /f /g; mv /g /h; ls -1 / | grep -v bin; cat /h", "f\nh\nx\n", 0),
        ("mkdir /d /e; echo x > /d/f; cp -r /d /e; cat /e/d/f; cp /d /x; echo $?", "x\n1\n", 0),
        ("mkdir /d; touch /a /b; mv /a /b /d; ls -1 /d", "a\nb\n", 0),
        ("mkdir /d; touch /d/f; rm /d; echo $?; rmdir /d; echo $?; rm -r /d; ls -d /d; echo $?", "1\n1\n4\n", 0),
        ("rm -f /none; echo $?; rm /none; echo $?", "0\n4\n", 0),
        ("echo x > /f; ln -s /f /l; cat /l; echo y > /l; cat /f; ls -l /l | grep -o '/l -> /f'", "x\ny\n/l -> /f\n", 0),
        ("mkdir /d; ln -s d /l; touch /l/f 2>/dev/null; cd /l && pwd; ls -1 /d", "/l\nf\n", 0),
        ("ln -s /a /b; ln -s /b /a; cat /a 2>&1", "cat: /a: too many levels of symbolic links\n", 1),
        ("touch /f; printf -- '-%s\\n' x; chmod 600 /f; stat --json /f | grep -o '\"mode\": [0-9]*'; chmod u+x,g+r /f; ls -l /f | grep -o '^[-rwx]*'", "-x\n\"mode\": 384\n-rwxr-----\n", 0),
        ("touch /f; chmod 640 /f; ls -l /f | grep -o '^[-rwx]*'", "-rw-r-----\n", 0),
        (
            "touch /f; chmod 4755 /f; ls -l /f | grep -o '^[-rwxs]*'; chmod 3642 /f; ls -l /f | grep -o '^[-rwxST]*'",
            "-rwsr-xr-x\n-rw-r-S-wT\n",
            0,
        ),
        ("printf 'abc' > /f; ls -l --bytes /f | grep -o ' 3 '; ls --json /f | grep size", " 3 \n    \"size\": 3,\n", 0),
        ("mkdir -p /t/a; touch /t/a/x /t/b; tree /t", "/t\n├── a\n│   └── x\n└── b\n", 0),
        ("basename /a/b.txt .txt; dirname /a/b.txt; dirname x; dirname /a", "b\n/a\n.\n/\n", 0),
    ])
    .await;
}

#[tokio::test]
async fn an_empty_name_is_nothing_and_not_the_place_where_one_stands() {
    let setup = "mkdir -p /d/keep; touch /d/keep/f; cd /d/keep; ";
    for (script, stdout, status) in [
        ("rm -r \"$UNSET\"; echo $?; ls /d", "4\nkeep\n", 0),
        ("rm -rf \"$UNSET\"; echo $?; ls /d", "0\nkeep\n", 0),
        (
            "rm -r .; echo $?; rm -r ..; echo $?; rm -rf ./ ../. /d/keep/..; echo $?; ls /d",
            "1\n1\n1\nkeep\n",
            0,
        ),
        ("rm -r /; echo $?; ls /d", "1\nkeep\n", 0),
        ("mkdir ''; echo $?; mkdir -p ''; echo $?; touch ''; echo $?; ls", "4\n4\n4\nf\n", 0),
        (
            "for verb in cat ls stat wc 'chmod 700' 'cp -r' mv; do $verb '' /x >/dev/null; echo -n $?; done; tree ''; echo -n $?; cp f ''; echo $?",
            "444444444\n",
            0,
        ),
        ("cd ''; echo $?; cat < ''; echo $?; echo x > ''; echo $?; pwd", "4\n4\n4\n/d/keep\n", 0),
        ("[ -e '' ]; echo $?; ln -s '' /l; echo $?; ls -1 /d", "1\n4\nkeep\n", 0),
    ] {
        let ran = Fixture::new().await.run(&format!("{setup}{script}")).await;
        assert_eq!((ran.stdout.as_str(), ran.status), (stdout, status), "{script}\nstderr: {}", ran.stderr);
    }
    let ran = Fixture::new().await.run("cat ''").await;
    assert_eq!(ran.stderr, "cat: '': no such file or directory\n");
}

#[tokio::test]
async fn what_everybody_types_is_understood() {
    check(&[
        ("seq 9 > /f; head -1 /f; tail -1 /f; seq 9 | head -2; seq 9 | tail -2 -", "1\n9\n1\n2\n8\n9\n", 0),
        ("seq 4 | head -n -3; seq 4 | head -n -9; seq 4 | head -n x; echo $?", "1\n2\n", 0),
        (
            "echo x > /f; cp -a /bin /b; cp -p /f /g; cp -f /f /g; mv -f /g /h; ls /b; cat /h",
            "env.wasm\nexit.wasm\nupper.wasm\nx\n",
            0,
        ),
        ("touch /a /b; mv -f -n /a /b; echo $?; mv -n -f /a /b; echo $?", "1\n0\n", 0),
        ("mkdir -v /d; touch /d/f; rm -rv /d", "made /d\nremoved /d\n", 0),
        ("printf 'a\\nb\\n' > /f; printf c > /g; cat -n /f /g", "     1\ta\n     2\tb\n     3\tc", 0),
        (
            "printf %2048s x > /f; ls -lh /f | grep -o '2.0 KiB'; ls -lh --bytes /f | grep -o 2048",
            "2.0 KiB\n2048\n",
            0,
        ),
        (
            "mkdir -p /t/a/c /t/b; touch /t/a/x /t/y; ls -R /t; ls -R --json /t | grep -c '\"path\"'",
            "/t:\na\nb\ny\n\n/t/a:\nc\nx\n\n/t/a/c:\n\n/t/b:\n5\n",
            0,
        ),
        (
            "mkdir -p /d/e; touch /d/e/f; ln -s /bin /d/l; chmod -R 700 /d; ls -lR /d | grep -o '^[-d]rw[-rwx]*'; ls -l / | grep -o '^[-d]rw[-rwx]*'",
            "drwx------\n-rwx------\ndrwxr-xr-x\ndrwx------\n",
            0,
        ),
        ("touch /x /y; mkdir /d; touch /d/z; ls /x /y /d", "/x\n/y\n\n/d:\nz\n", 0),
    ])
    .await;
}

#[tokio::test]
async fn names_do_not_command_the_terminal_that_shows_them() {
    let setup =
        r"mkdir -p $'/d/esc\x1b[31mred'; echo hit > $'/d/esc\x1b[31mred/f'; ln -s $'/\x1b]0;t\x07' /d/l; ";
    for script in [
        "ls /d",
        "ls -1 /d",
        "ls -l /d",
        "ls -R /d",
        "tree /d",
        "grep -r hit /d",
        "head -n 1 /d/*/f /d/*/f",
        "stat /d/esc*",
        "rm -v /d/*/f",
        r"ls $'/d/esc\x1b[31mred/none'",
        "cat /d/esc*",
    ] {
        let mut fixture = Fixture::new().await;
        fixture.run(setup).await;
        let raw = fixture.run_at_terminal(script).await;
        let shown = raw.stdout.clone() + &raw.stderr;
        // Its own colours are fine.
        let rest = shown.replace("\x1b[1;34m", "").replace("\x1b[0m", "");
        assert!(rest.contains("esc?[31mred"), "{script}: {shown:?}");
        assert!(!rest.contains(['\x1b', '\x07']), "{script}: {shown:?}");
    }
    let ran = Fixture::new().await.run(&format!("{setup} ls /d")).await;
    assert!(ran.stdout.contains("esc\x1b[31mred"), "to a program the name is what it is");
}

#[tokio::test]
async fn text_tools() {
    check(&[
        ("seq 5 | head -n 2; seq 5 | tail -n 2; seq 5 | tail -n +4", "1\n2\n4\n5\n4\n5\n", 0),
        ("printf abcdef | head -c 2; echo; printf abcdef | tail -c 2", "ab\nef", 0),
        ("printf 'b\\na\\nb\\n' | sort | uniq -c", "      1 a\n      2 b\n", 0),
        ("printf '10\\n9\\n2\\n' | sort -n; printf 'x 2\\ny 1\\n' | sort -k 2", "2\n9\n10\ny 1\nx 2\n", 0),
        ("printf 'a b\\nc\\n' | wc; printf 'a b\\nc\\n' | wc -w", "      2       3       6\n3\n", 0),
        (
            "printf 'one\\ntwo\\n' | grep -n o; printf 'one\\ntwo\\n' | grep -c t; echo x | grep y; echo $?",
            "1:one\n2:two\n1\n1\n",
            0,
        ),
        (
            "mkdir /d; echo hit > /d/a; echo miss > /d/b; grep -r hit /d; grep -l hit /d/*",
            "/d/a:hit\n/d/a\n",
            0,
        ),
        (
            "printf '%s-%d|' a 1 b 2; printf '%5.1f|%-4s|%04d|%x\\n' 2.25 ab 7 255",
            "a-1|b-2|  2.2|ab  |0007|ff\n",
            0,
        ),
        ("echo -n a; echo -e 'b\\tc'; echo -- --help", "ab\tc\n-- --help\n", 0),
    ])
    .await;
}

#[tokio::test]
async fn help_lists_everything_and_explains_each() {
    let mut fixture = Fixture::new().await;
    let all = fixture.run("help").await;
    for name in ["cat", "cd", "peers", "grep"] {
        assert!(all.stdout.contains(&format!("  {name} ")), "{name} is in\n{}", all.stdout);
        let one = fixture.run(&format!("help {name}")).await;
        assert_eq!(one.status, 0);
        assert!(one.stdout.len() > 20, "{}", one.stdout);
    }
    assert!(fixture.run("ls --help").await.stdout.contains("Usage"));
    assert_eq!(fixture.run("help nothing").await.status, 4);
}
