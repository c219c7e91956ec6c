;; Answers a request with 201 and its own path, a line's end, and its own body.
(module
  (import "wasi:http/types@0.2.0" "[method]incoming-request.path-with-query" (func $path (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-request.consume" (func $consume (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]incoming-body.stream" (func $incoming (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.2.0" "[constructor]outgoing-response" (func $response (param i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-response.set-status-code"
    (func $status (param i32 i32) (result i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-response.body" (func $body (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[method]outgoing-body.write" (func $outgoing (param i32 i32)))
  (import "wasi:http/types@0.2.0" "[static]outgoing-body.finish" (func $finish (param i32 i32 i32 i32)))
  (import "wasi:http/types@0.2.0" "[static]response-outparam.set"
    (func $set (param i32 i32 i32 i32 i64 i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[method]input-stream.blocking-read" (func $read (param i32 i64 i32)))
  (import "wasi:io/streams@0.2.0" "[method]output-stream.blocking-write-and-flush"
    (func $write (param i32 i32 i32 i32)))
  (import "wasi:io/streams@0.2.0" "[resource-drop]output-stream" (func $close (param i32)))
  (memory (export "memory") 2)
  (data (i32.const 512) "\n")
  (global $free (mut i32) (i32.const 1024))
  ;; What is read is copied at once, so that its place can be taken again.
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (global.get $free))

  (func $handle (export "wasi:http/incoming-handler@0.2.0#handle") (param $request i32) (param $out i32)
    (local $response i32) (local $body i32) (local $to i32) (local $from i32)
    (local.set $response (call $response (call $fields)))
    (drop (call $status (local.get $response) (i32.const 201)))
    (call $body (local.get $response) (i32.const 0))
    (local.set $body (i32.load (i32.const 4)))
    (call $outgoing (local.get $body) (i32.const 0))
    (local.set $to (i32.load (i32.const 4)))
    (call $set (local.get $out) (i32.const 0) (local.get $response) (i32.const 0) (i64.const 0)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (call $path (local.get $request) (i32.const 0))
    (call $write (local.get $to) (i32.load (i32.const 4)) (i32.load (i32.const 8)) (i32.const 32))
    (call $write (local.get $to) (i32.const 512) (i32.const 1) (i32.const 32))
    (call $consume (local.get $request) (i32.const 0))
    (call $incoming (i32.load (i32.const 4)) (i32.const 0))
    (local.set $from (i32.load (i32.const 4)))
    (block $end
      (loop $more
        (call $read (local.get $from) (i64.const 4096) (i32.const 0))
        (br_if $end (i32.load8_u (i32.const 0)))
        (call $write (local.get $to) (i32.load (i32.const 4)) (i32.load (i32.const 8)) (i32.const 32))
        (br $more)))
    (call $close (local.get $to))
    (call $finish (local.get $body) (i32.const 0) (i32.const 0) (i32.const 0))))
