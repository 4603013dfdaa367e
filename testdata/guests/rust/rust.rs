//! The conformance guest in Rust, without a crate: what is to answer what stands
//! in ../README.md.

use std::sync::atomic::{AtomicI64, Ordering};

mod wapc {
    #[link(wasm_import_module = "wapc")]
    extern "C" {
        pub fn __guest_request(operation: *mut u8, payload: *mut u8);
        pub fn __guest_response(at: *const u8, len: usize);
        pub fn __guest_error(at: *const u8, len: usize);
        pub fn __host_call(
            binding: *const u8, binding_len: usize, namespace: *const u8, namespace_len: usize,
            operation: *const u8, operation_len: usize, payload: *const u8, payload_len: usize,
        ) -> usize;
        pub fn __host_response_len() -> usize;
        pub fn __host_response(at: *mut u8);
        pub fn __host_error_len() -> usize;
        pub fn __host_error(at: *mut u8);
    }
}

/// What an operation answers: a reply, or the text of an error.
type Answer = Result<Vec<u8>, Vec<u8>>;

/// The allocator takes its first memory here and not in the first turn: what
/// `wapc_init` leaves is what every instance begins with, and memory that does
/// not grow can be used again for the next actor.
#[no_mangle]
pub extern "C" fn wapc_init() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(1)));
}

#[no_mangle]
pub extern "C" fn __guest_call(operation_len: usize, payload_len: usize) -> usize {
    let (mut operation, mut payload) = (vec![0; operation_len], vec![0; payload_len]);
    // The host writes exactly as many bytes as it said.
    unsafe { wapc::__guest_request(operation.as_mut_ptr(), payload.as_mut_ptr()) };
    match run(&operation, payload) {
        Ok(reply) => {
            unsafe { wapc::__guest_response(reply.as_ptr(), reply.len()) };
            1
        }
        Err(text) => {
            unsafe { wapc::__guest_error(text.as_ptr(), text.len()) };
            0
        }
    }
}

fn run(operation: &[u8], payload: Vec<u8>) -> Answer {
    match operation {
        b"echo" => Ok(payload),
        b"noop" => Ok(Vec::new()),
        b"nope" => Err(b"No!".to_vec()),
        b"inc" => inc(&payload),
        b"get" => Ok(text(load()?)),
        b"reset" => {
            let old = load()?;
            ask(b"KV-DELETE", b"n")?;
            Ok(text(old))
        }
        b"host" => {
            let mut parts = payload.splitn(2, |b| *b == 0);
            ask(parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
        }
        b"remember" => {
            static REMEMBERED: AtomicI64 = AtomicI64::new(0);
            Ok(text(REMEMBERED.fetch_add(1, Ordering::Relaxed) + 1))
        }
        _ => Err([b"Could not find function \"", operation, b"\""].concat()),
    }
}

fn inc(payload: &[u8]) -> Answer {
    let amount = match payload {
        b"" => 1,
        _ => number(payload).ok_or(b"inc: the payload must be empty or a decimal number")?,
    };
    let sum = text(load()? + amount);
    ask(b"KV-PUT", &[b"\x02n", &sum[..]].concat())?; // the key's length 1 as a zig-zag varint, and the key
    Ok(sum)
}

fn load() -> Result<i64, Vec<u8>> {
    let reply = ask(b"KV-GET", b"n")?;
    Ok(reply.get(1..).and_then(number).unwrap_or(0))
}

fn number(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn text(n: i64) -> Vec<u8> {
    n.to_string().into_bytes()
}

fn ask(operation: &[u8], request: &[u8]) -> Answer {
    let (binding, namespace) = ("wapc", "nola");
    // The host reads what it is given, and writes as many bytes as it said.
    unsafe {
        let ok = wapc::__host_call(
            binding.as_ptr(), binding.len(), namespace.as_ptr(), namespace.len(),
            operation.as_ptr(), operation.len(), request.as_ptr(), request.len(),
        );
        if ok == 1 {
            let mut reply = vec![0; wapc::__host_response_len()];
            wapc::__host_response(reply.as_mut_ptr());
            Ok(reply)
        } else {
            let mut text = vec![0; wapc::__host_error_len()];
            wapc::__host_error(text.as_mut_ptr());
            Err(text)
        }
    }
}
