//! The same scripts in the system's `sh` over a folder and here over a tree: output, success and files agree.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::Fixture;
use crate::shell::fs::path::VfsPath;
use crate::shell::fs::vfs::Kind;

/// Scripts in what both have; each starts in an empty folder.
const SCRIPTS: &[&str] = &[
    "echo a b  c; echo 'a  b' \"c  d\" e\\ f",
    "x=1; y=\"$x 2\"; echo $y \"$y\" ${y} ${z:-none} ${#y}",
    "f=dir/name.tar.gz; echo ${f%.*} ${f%%.*} ${f#*/} ${f##*.}",
    "set -- a 'b c' d; echo $# $1 \"$2\"; shift; echo \"$@\"; for i; do echo \"[$i]\"; done",
    "for i in 1 2 3; do if [ $i -eq 2 ]; then continue; fi; echo $i; done",
    "i=0; while [ $i -lt 3 ]; do i=$((i + 1)); echo $i; done; echo end $i",
    "case foo.txt in *.md) echo md;; *.txt|*.log) echo text;; *) echo other;; esac",
    "f() { echo \"f $1\"; return 4; }; f x; echo $?; f y || echo failed",
    "true && echo a || echo b; false && echo a || echo b; ! true; echo $?",
    "echo one > a; echo two >> a; cat a; cat < a | sort -r > b; cat b",
    "mkdir -p d/e; echo x > d/e/f; cp d/e/f g; mv g h; cat h; rm h; ls d",
    "touch b a c; echo *; echo [ab]; echo nothing*; rm -f a nothere; echo *",
    "printf '%s:%d\\n' a 1 b 2; printf 'x%5d|%-5s|\\n' 42 ab",
    "printf 'b\\na\\nc\\na\\n' | sort | uniq | head -n 2; printf '3\\n10\\n1\\n' | sort -n | tail -n 1",
    "seq 3 | while read n; do echo \"n=$n\"; done; echo ${n:-unset}",
    "echo $(echo $(echo deep)); x=$(printf 'a\\n\\n'); echo \"[$x]\"; echo `echo old`",
    "cat <<E\nhello $((3 * 4)) $(echo sub)\nE",
    "cat <<'E'\n$not \\expanded\nE",
    "(x=inner; echo $x; exit 3); echo $? ${x:-outer}",
    "{ echo a; echo b; } > f; grep -c . f; wc -l < f",
    "set -e; echo before; false; echo after",
    "set -u; echo ${unset_variable}; echo after",
    "cat nosuchfile; echo status",
    "cd nosuchdir || echo could not; mkdir d; cd d; echo x > y; cd ..; cat d/y",
    "IFS=,; x=a,b,c; for i in $x; do echo $i; done",
    "x='a b'; for i in $x; do echo \"<$i>\"; done; for i in \"$x\"; do echo \"<$i>\"; done",
    "echo hello | grep -q ell && echo found; echo hello | grep -v ell || echo none",
    "for d in a b; do mkdir $d; for f in 1 2; do echo $d$f > $d/$f; done; done; cat */*; ls",
    "test -d . && test ! -f nothing && [ abc = abc ] && [ -n x -a -z '' ] && echo ok",
    "eval 'x=5; echo $x'; unset x; echo [${x-gone}]",
    "until [ -f stop ]; do touch stop; done; ls",
    "a=3; b=4; echo $((a * a + b * b)) $((a > b)) $((b % a)) $((-a))",
    "echo a; exit 5",
    "f() { for i in 1 2 3; do [ $i = 2 ] && return 0; echo $i; done; }; f; echo done",
    "ln -s target link; echo content > target; cat link; rm link; cat target",
    "echo x | tee a b | cat; cat a b; basename /x/y.c .c; dirname /x/y.c",
    "read a b <<E\n1 2 3\nE\necho \"$a|$b\"",
    "x=abc; case $x in a?c) echo q;; esac; case '*' in '*') echo star;; esac; case b in [a-c]) echo range;; esac",
];

#[tokio::test]
async fn scripts_mean_here_what_they_mean_to_sh() {
    if Command::new("sh").arg("-c").arg("exit 0").status().is_err() {
        eprintln!("skipped: there is no sh here to compare with");
        return;
    }
    let mut differences = Vec::new();
    for script in SCRIPTS {
        let theirs = in_sh(script);
        let ours = here(script).await;
        if theirs != ours {
            differences.push(format!("{script}\n  sh:   {theirs:?}\n  here: {ours:?}"));
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {} differ:\n{}",
        differences.len(),
        SCRIPTS.len(),
        differences.join("\n")
    );
}

/// Output, whether it went well (the numbers for failures are our own), and the files left behind.
type Result = (String, bool, BTreeMap<String, String>);

fn in_sh(script: &str) -> Result {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .arg("-c")
        .arg(script)
        .current_dir(folder.path())
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    let mut files = BTreeMap::new();
    collect(folder.path(), "", &mut files);
    (String::from_utf8(output.stdout).unwrap(), output.status.success(), files)
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(std::result::Result::unwrap) {
        let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files);
        } else {
            files.insert(name, std::fs::read_to_string(entry.path()).unwrap());
        }
    }
}

async fn here(script: &str) -> Result {
    let mut fixture = Fixture::new().await;
    let ran = fixture.run(&format!("mkdir /work; cd /work\n{script}")).await;
    let root = VfsPath::parse("/work").unwrap();
    let mut files = BTreeMap::new();
    let mut waiting = vec![root];
    while let Some(path) = waiting.pop() {
        for entry in fixture.vfs.list(&path).await.unwrap() {
            let path = path.join(&entry.name).unwrap();
            if entry.kind == Kind::Dir {
                waiting.push(path);
            } else {
                let name = path.as_str().trim_start_matches("/work/").to_owned();
                files.insert(name, fixture.content(path.as_str()).await);
            }
        }
    }
    (ran.stdout, ran.status == 0, files)
}
