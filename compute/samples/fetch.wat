;; Sends "ping" to http://HOST/there, where HOST is its argument, and prints what comes back. Traps where there is no response,
;; and exits with 1 where its status is not 200.
(module
  (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-request" (func $request (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-method"
    (func $set_method (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-scheme"
    (func $set_scheme (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-authority"
    (func $set_authority (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.set-path-with-query"
    (func $set_path (param i32 i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-request.body" (func $request_body (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-body.write" (func $outgoing (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[static]outgoing-body.finish" (func $finish (param i32 i32 i32 i32)))
  (import "wasi:http/outgoing-handler@0.2.0" "handle" (func $handle (param i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]future-incoming-response.subscribe"
    (func $subscribe (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]future-incoming-response.get" (func $get (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-response.status" (func $status (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-response.consume" (func $consume (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-body.stream" (func $incoming (param i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]input-stream.blocking-read" (func $read (param i32 i64 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $close (param i32)))
  (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 4)
  (data (i32.const 512) "/thereping")
  ;; The adapter that makes a component of this takes 64 KiB for itself, once. All else is used at once, so that its place can
  ;; be taken again.
  (func (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32)
    (select (i32.const 131072) (i32.const 65536) (i32.ge_u (local.get $size) (i32.const 32768))))
  (func $length (param $at i32) (result i32)
    (local $end i32)
    (local.set $end (local.get $at))
    (loop $next
      (if (i32.load8_u (local.get $end))
        (then (local.set $end (i32.add (local.get $end) (i32.const 1))) (br $next))))
    (i32.sub (local.get $end) (local.get $at)))
  (func (export "_start")
    (local $request i32) (local $body i32) (local $to i32) (local $future i32) (local $status i32) (local $from i32)
    (if (call $args_get (i32.const 256) (i32.const 1024)) (then unreachable))
    (local.set $request (call $request (call $fields)))
    (drop (call $set_method (local.get $request) (i32.const 2) (i32.const 0) (i32.const 0)))
    (drop (call $set_scheme (local.get $request) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))
    (drop (call $set_authority (local.get $request) (i32.const 1) (i32.load (i32.const 260))
      (call $length (i32.load (i32.const 260)))))
    (drop (call $set_path (local.get $request) (i32.const 1) (i32.const 512) (i32.const 6)))
    (call $request_body (local.get $request) (i32.const 0))
    (local.set $body (i32.load (i32.const 4)))
    (call $outgoing (local.get $body) (i32.const 0))
    (local.set $to (i32.load (i32.const 4)))
    (call $handle (local.get $request) (i32.const 0) (i32.const 0) (i32.const 0))
    (if (i32.load8_u (i32.const 0)) (then unreachable))
    (local.set $future (i32.load (i32.const 8)))
    (call $write (local.get $to) (i32.const 518) (i32.const 4) (i32.const 32))
    (call $close (local.get $to))
    (call $finish (local.get $body) (i32.const 0) (i32.const 0) (i32.const 64))
    (call $block (call $subscribe (local.get $future)))
    ;; An option, a result and a result, each with its case in front: 0, 8 and 16; the response is at 24.
    (call $get (local.get $future) (i32.const 0))
    (if (i32.load8_u (i32.const 16)) (then unreachable))
    (local.set $status (call $status (i32.load (i32.const 24))))
    (call $consume (i32.load (i32.const 24)) (i32.const 0))
    (call $incoming (i32.load (i32.const 4)) (i32.const 0))
    (local.set $from (i32.load (i32.const 4)))
    (block $end
      (loop $more
        (call $read (local.get $from) (i64.const 4096) (i32.const 0))
        (br_if $end (i32.load8_u (i32.const 0)))
        (if (call $fd_write (i32.const 1) (i32.const 4) (i32.const 1) (i32.const 128)) (then unreachable))
        (br $more)))
    (call $exit (i32.ne (local.get $status) (i32.const 200)))))
