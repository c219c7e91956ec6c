;; Adds one to the key "n" of the bucket "counts" and prints the sum, a digit; or "open" or "write", and the number of the
;; error, where that fails.
(module
  (import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft2" "increment" (func $increment (param i32 i32 i32 i64 i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 4)
  (data (i32.const 512) "countsnopen write")
  ;; The adapter that makes a component of this takes 64 KiB for itself, once. All else is used at once, so that its place can
  ;; be taken again.
  (func (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32)
    (select (i32.const 131072) (i32.const 65536) (i32.ge_u (local.get $size) (i32.const 32768))))
  ;; Some bytes, and behind them a digit.
  (func $print (param $at i32) (param $length i32) (param $digit i32)
    (i32.store8 (i32.add (local.get $at) (local.get $length)) (i32.add (i32.const 48) (local.get $digit)))
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (i32.add (local.get $length) (i32.const 1)))
    (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable)))
  (func $fail (param $word i32) (param $problem i32)
    (call $print (local.get $word) (i32.const 5) (local.get $problem))
    (call $exit (i32.const 1)))
  (func (export "_start")
    ;; A result: its case at 64, and what it holds from 68 on (a number of 64 bits from 72 on).
    (call $open (i32.const 512) (i32.const 6) (i32.const 64))
    (if (i32.load8_u (i32.const 64))
      (then (call $fail (i32.const 519) (i32.load8_u (i32.const 68)))))
    (call $increment (i32.load (i32.const 68)) (i32.const 518) (i32.const 1) (i64.const 1) (i32.const 64))
    (if (i32.load8_u (i32.const 64))
      (then (call $fail (i32.const 524) (i32.load8_u (i32.const 72)))))
    (call $print (i32.const 128) (i32.const 0) (i32.load (i32.const 72)))))
