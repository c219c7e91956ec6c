;; Prints its last argument and a newline; exits with 3 if that ends with an x, and traps if it ends with a t.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 4)
  (func (export "_start")
    (local $start i32) (local $end i32) (local $last i32)
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    ;; The addresses of all arguments from 4096 on, their bytes from 65536 on, one behind the other.
    (drop (call $args_get (i32.const 4096) (i32.const 65536)))
    (local.set $start
      (i32.load (i32.add (i32.const 4092) (i32.mul (i32.const 4) (i32.load (i32.const 0))))))
    ;; The last byte of all is the zero behind the last argument: a newline takes its place.
    (local.set $end (i32.add (i32.const 65536) (i32.load (i32.const 4))))
    (i32.store8 (i32.sub (local.get $end) (i32.const 1)) (i32.const 10))
    (i32.store (i32.const 8) (local.get $start))
    (i32.store (i32.const 12) (i32.sub (local.get $end) (local.get $start)))
    (drop (call $fd_write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))
    (local.set $last (i32.load8_u (i32.sub (local.get $end) (i32.const 2))))
    (if (i32.eq (local.get $last) (i32.const 0x74)) (then (unreachable)))
    (if (i32.eq (local.get $last) (i32.const 0x78)) (then (call $proc_exit (i32.const 3))))))
