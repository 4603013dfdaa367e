// The conformance guest in AssemblyScript, with waPC's SDK: what is to answer
// what stands in ../../README.md.
import { register, handleCall, hostCall, handleAbort, Result } from "@wapc/as-guest";

register("echo", function (payload: ArrayBuffer): Result<ArrayBuffer> {
  return Result.ok(payload);
});

register("noop", function (payload: ArrayBuffer): Result<ArrayBuffer> {
  return Result.ok(new ArrayBuffer(0));
});

register("nope", function (payload: ArrayBuffer): Result<ArrayBuffer> {
  return fail("No!");
});

register("inc", function (payload: ArrayBuffer): Result<ArrayBuffer> {
  const digits = String.UTF8.decode(payload);
  if (digits.length > 0 && !isNumber(digits)) {
    return fail("inc: the payload must be empty or a decimal number");
  }
  const old = load();
  if (!old.isOk) return old;
  const sum = String.UTF8.encode((value(old) + (digits.length > 0 ? I64.parseInt(digits) : 1)).toString());
  const request = new Uint8Array(sum.byteLength + 2);
  request[0] = 2; // the key's length 1 as a zig-zag varint
  request[1] = 0x6e; // n
  request.set(Uint8Array.wrap(sum), 2);
  const put = hostCall("wapc", "nola", "KV-PUT", request.buffer);
  return put.isOk ? Result.ok(sum) : put;
});

register("get", function (payload: ArrayBuffer): Result<ArrayBuffer> {
  const old = load();
  return old.isOk ? text(value(old)) : old;
});

register("reset", function (payload: ArrayBuffer): Result<ArrayBuffer> {
  const old = load();
  if (!old.isOk) return old;
  const deleted = hostCall("wapc", "nola", "KV-DELETE", String.UTF8.encode("n"));
  return deleted.isOk ? text(value(old)) : deleted;
});

register("host", function (payload: ArrayBuffer): Result<ArrayBuffer> {
  const all = Uint8Array.wrap(payload);
  let end = all.indexOf(0);
  if (end < 0) end = all.length;
  return hostCall("wapc", "nola", String.UTF8.decode(payload.slice(0, end)), payload.slice(end + 1));
});

let remembered: i64 = 0;

register("remember", function (payload: ArrayBuffer): Result<ArrayBuffer> {
  return text(++remembered);
});

function fail(text: string): Result<ArrayBuffer> {
  return Result.error<ArrayBuffer>(new Error(text));
}

function text(n: i64): Result<ArrayBuffer> {
  return Result.ok(String.UTF8.encode(n.toString()));
}

// load answers the host's reply: a flag, then the value in decimal digits.
function load(): Result<ArrayBuffer> {
  return hostCall("wapc", "nola", "KV-GET", String.UTF8.encode("n"));
}

function value(reply: Result<ArrayBuffer>): i64 {
  const bytes = reply.get();
  return bytes.byteLength > 1 ? I64.parseInt(String.UTF8.decode(bytes.slice(1))) : 0;
}

function isNumber(digits: string): bool {
  const sign = digits.charCodeAt(0);
  let i = sign == 0x2b || sign == 0x2d ? 1 : 0;
  if (i == digits.length) return false;
  for (; i < digits.length; i++) {
    const digit = digits.charCodeAt(i);
    if (digit < 0x30 || digit > 0x39) return false;
  }
  return true;
}

export function __guest_call(operation_size: usize, payload_size: usize): bool {
  return handleCall(operation_size, payload_size);
}

function abort(message: string | null, fileName: string | null, lineNumber: u32, columnNumber: u32): void {
  handleAbort(message, fileName, lineNumber, columnNumber);
}
