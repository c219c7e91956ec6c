;; `primes FROM TO`: prints the primes from FROM to before TO, one a line, found by trial division.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  ;; 0: a buffer's address and length; 8: bytes moved; 16: how many arguments, how long; 32: their addresses;
  ;; 64: a number in decimal, its end at 96; 1024: the arguments themselves; 65536: output that waits.
  (memory (export "memory") 3)
  (global $waiting (mut i32) (i32.const 65536))

  (func $number (param $at i32) (result i64)
    (local $value i64) (local $digit i32)
    (loop $next
      (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
      (if (i32.lt_u (local.get $digit) (i32.const 10))
        (then
          (local.set $value
            (i64.add (i64.mul (local.get $value) (i64.const 10)) (i64.extend_i32_u (local.get $digit))))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $next))))
    (local.get $value))

  (func $is_prime (param $n i64) (result i32)
    (local $by i64)
    (if (i64.lt_u (local.get $n) (i64.const 4)) (then (return (i64.gt_u (local.get $n) (i64.const 1)))))
    (if (i64.eqz (i64.rem_u (local.get $n) (i64.const 2))) (then (return (i32.const 0))))
    (local.set $by (i64.const 3))
    (loop $next
      (if (i64.le_u (i64.mul (local.get $by) (local.get $by)) (local.get $n))
        (then
          (if (i64.eqz (i64.rem_u (local.get $n) (local.get $by))) (then (return (i32.const 0))))
          (local.set $by (i64.add (local.get $by) (i64.const 2)))
          (br $next))))
    (i32.const 1))

  (func $flush
    (local $from i32)
    (local.set $from (i32.const 65536))
    (loop $more
      (if (i32.lt_u (local.get $from) (global.get $waiting))
        (then
          (i32.store (i32.const 0) (local.get $from))
          (i32.store (i32.const 4) (i32.sub (global.get $waiting) (local.get $from)))
          (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))
            (then (call $exit (i32.const 1))))
          (local.set $from (i32.add (local.get $from) (i32.load (i32.const 8))))
          (br $more))))
    (global.set $waiting (i32.const 65536)))

  (func $print (param $n i64)
    (local $at i32)
    (local.set $at (i32.const 95))
    (i32.store8 (local.get $at) (i32.const 10))
    (loop $next
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $n) (i64.const 10)))))
      (local.set $n (i64.div_u (local.get $n) (i64.const 10)))
      (br_if $next (i64.ne (local.get $n) (i64.const 0))))
    (memory.copy (global.get $waiting) (local.get $at) (i32.sub (i32.const 96) (local.get $at)))
    (global.set $waiting (i32.add (global.get $waiting) (i32.sub (i32.const 96) (local.get $at))))
    (if (i32.gt_u (global.get $waiting) (i32.const 131072)) (then (call $flush))))

  (func (export "_start")
    (local $n i64) (local $end i64)
    (drop (call $sizes (i32.const 16) (i32.const 20)))
    ;; Two words, and the name of the program; all of them short.
    (if (i32.or (i32.ne (i32.load (i32.const 16)) (i32.const 3)) (i32.gt_u (i32.load (i32.const 20)) (i32.const 4096)))
      (then (call $exit (i32.const 2))))
    (drop (call $args (i32.const 32) (i32.const 1024)))
    (local.set $n (call $number (i32.load (i32.const 36))))
    (local.set $end (call $number (i32.load (i32.const 40))))
    (loop $next
      (if (i64.lt_u (local.get $n) (local.get $end))
        (then
          (if (call $is_prime (local.get $n)) (then (call $print (local.get $n))))
          (local.set $n (i64.add (local.get $n) (i64.const 1)))
          (br $next))))
    (call $flush)))
