//! Answers HTTP requests: counts how often each path was asked for, in the bucket "hits" of the swarm's memory.
//!
//! A handler of `wasi:http` without further tools: functions are imported as the canonical ABI gives them, and what they
//! return is written to a place that the caller names.

const std = @import("std");

const types = struct {
    const module = "wasi:http/types@0.2.0";
    const path = @extern(*const fn (i32, *Optional) callconv(.c) void, .{ .name = "[method]incoming-request.path-with-query", .library_name = module });
    const newHeaders = @extern(*const fn () callconv(.c) i32, .{ .name = "[constructor]fields", .library_name = module });
    const append = @extern(*const fn (i32, [*]const u8, usize, [*]const u8, usize, *Result) callconv(.c) void, .{ .name = "[method]fields.append", .library_name = module });
    const newResponse = @extern(*const fn (i32) callconv(.c) i32, .{ .name = "[constructor]outgoing-response", .library_name = module });
    const setStatus = @extern(*const fn (i32, i32) callconv(.c) i32, .{ .name = "[method]outgoing-response.set-status-code", .library_name = module });
    const body = @extern(*const fn (i32, *Result) callconv(.c) void, .{ .name = "[method]outgoing-response.body", .library_name = module });
    const write = @extern(*const fn (i32, *Result) callconv(.c) void, .{ .name = "[method]outgoing-body.write", .library_name = module });
    const finish = @extern(*const fn (i32, i32, i32, *Finished) callconv(.c) void, .{ .name = "[static]outgoing-body.finish", .library_name = module });
    const respond = @extern(*const fn (i32, i32, i32, i32, i64, i32, i32, i32, i32) callconv(.c) void, .{ .name = "[static]response-outparam.set", .library_name = module });
};
const streams = struct {
    const module = "wasi:io/streams@0.2.0";
    const write = @extern(*const fn (i32, [*]const u8, usize, *Result) callconv(.c) void, .{ .name = "[method]output-stream.blocking-write-and-flush", .library_name = module });
    const close = @extern(*const fn (i32) callconv(.c) void, .{ .name = "[resource-drop]output-stream", .library_name = module });
};
const keyvalue = struct {
    const open = @extern(*const fn ([*]const u8, usize, *Result) callconv(.c) void, .{ .name = "open", .library_name = "wasi:keyvalue/store@0.2.0-draft2" });
    const increment = @extern(*const fn (i32, [*]const u8, usize, i64, *Number) callconv(.c) void, .{ .name = "increment", .library_name = "wasi:keyvalue/atomics@0.2.0-draft2" });
};

/// An optional text.
const Optional = extern struct { is_there: u8, at: [*]const u8, length: usize };
/// A handle, or an error of up to three words.
const Result = extern struct { failed: u8, handle: i32, more: [3]u32 };
/// A number, or an error.
const Number = extern struct { failed: u8, number: i64, more: [2]u32 };
/// Nothing, or one of the errors of HTTP.
const Finished = extern struct { failed: u8, more: [5]u64 };

var memory: [64 << 10]u8 = undefined;
var arena = std.heap.FixedBufferAllocator.init(&memory);

/// Where the host puts what it returns.
export fn cabi_realloc(_: ?[*]u8, _: usize, alignment: usize, size: usize) ?[*]u8 {
    return arena.allocator().rawAlloc(size, .fromByteUnits(alignment), 0);
}

fn handle(request: i32, out: i32) callconv(.c) void {
    var asked: Optional = undefined;
    types.path(request, &asked);
    const path = if (asked.is_there == 1) asked.at[0..asked.length] else "/";
    var text: [4096]u8 = undefined;
    const answer = count(path, &text) catch {
        return reply(out, 503, "the bucket \"hits\" was not granted (--grant mem:hits)\n");
    };
    reply(out, 200, answer);
}

fn count(path: []const u8, text: []u8) ![]const u8 {
    var bucket: Result = undefined;
    keyvalue.open("hits", 4, &bucket);
    if (bucket.failed != 0) return error.Denied;
    var hits: Number = undefined;
    keyvalue.increment(bucket.handle, path.ptr, path.len, 1, &hits);
    if (hits.failed != 0) return error.Denied;
    return std.fmt.bufPrint(text, "{d} {s}\n", .{ hits.number, path });
}

fn reply(out: i32, status: i32, answer: []const u8) void {
    var done: Result = undefined;
    const headers = types.newHeaders();
    const name = "content-type";
    const value = "text/plain; charset=utf-8";
    types.append(headers, name, name.len, value, value.len, &done);
    const response = types.newResponse(headers);
    _ = types.setStatus(response, status);
    var body: Result = undefined;
    types.body(response, &body);
    types.respond(out, 0, response, 0, 0, 0, 0, 0, 0);
    var stream: Result = undefined;
    types.write(body.handle, &stream);
    streams.write(stream.handle, answer.ptr, answer.len, &done);
    streams.close(stream.handle);
    var finished: Finished = undefined;
    types.finish(body.handle, 0, 0, &finished);
}

comptime {
    @export(&handle, .{ .name = "wasi:http/incoming-handler@0.2.0#handle" });
}
