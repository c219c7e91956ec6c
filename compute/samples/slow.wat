;; Prints a line, sleeps for three seconds, and prints another.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 256) "begun\nended\n")
  (func $say (param $at i32)
    (i32.store (i32.const 128) (local.get $at))
    (i32.store (i32.const 132) (i32.const 6))
    (drop (call $fd_write (i32.const 1) (i32.const 128) (i32.const 1) (i32.const 136))))
  (func (export "_start")
    (call $say (i32.const 256))
    ;; Three seconds of the monotonic clock.
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 3000000000))
    (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 120)))
    (call $say (i32.const 262))))
