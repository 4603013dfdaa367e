;; The conformance guest by hand: what is to answer what stands in ../README.md.
(module
  (import "wapc" "__guest_request" (func $guest_request (param $operation i32) (param $payload i32)))
  (import "wapc" "__guest_response" (func $guest_response (param $at i32) (param $len i32)))
  (import "wapc" "__guest_error" (func $guest_error (param $at i32) (param $len i32)))
  (import "wapc" "__host_call" (func $host_call
    (param $binding i32) (param i32) (param $namespace i32) (param i32)
    (param $operation i32) (param i32) (param $payload i32) (param i32) (result i32)))
  (import "wapc" "__host_response_len" (func $host_response_len (result i32)))
  (import "wapc" "__host_response" (func $host_response (param $at i32)))
  (import "wapc" "__host_error_len" (func $host_error_len (result i32)))
  (import "wapc" "__host_error" (func $host_error (param $at i32)))

  (memory (export "memory") 1)

  (data (i32.const 0) "echo" "noop" "nope" "host" "inc" "get" "reset" "remember")
  (data (i32.const 64) "KV-GET" "KV-PUT" "KV-DELETE" "n" "wapc" "nola" "No!")
  (data (i32.const 128) "inc: the payload must be empty or a decimal number")
  (data (i32.const 192) "Could not find function \22")

  ;; Memory from 1024 on is an arena that begins anew with each call.
  (global $arena i32 (i32.const 1024))
  (global $top (mut i32) (i32.const 1024))
  (global $remembered (mut i64) (i64.const 0))
  ;; What a function answers in bytes stands here.
  (global $at (mut i32) (i32.const 0))
  (global $len (mut i32) (i32.const 0))

  (func $alloc (param $len i32) (result i32)
    (local $start i32) (local $have i32)
    (local.set $start (global.get $top))
    (global.set $top (i32.add (local.get $start)
      (i32.and (i32.add (local.get $len) (i32.const 15)) (i32.const -16))))
    (if (i32.lt_u (global.get $top) (local.get $start)) (then unreachable))
    (local.set $have (i32.shl (memory.size) (i32.const 16)))
    (if (i32.gt_u (global.get $top) (local.get $have)) (then
      (if (i32.eq (i32.const -1) (memory.grow
          (i32.shr_u (i32.add (i32.sub (global.get $top) (local.get $have)) (i32.const 65535)) (i32.const 16))))
        (then unreachable))))
    (local.get $start))

  (func $equal (param $a i32) (param $alen i32) (param $b i32) (param $blen i32) (result i32)
    (if (i32.ne (local.get $alen) (local.get $blen)) (then (return (i32.const 0))))
    (loop $next
      (if (i32.eqz (local.get $alen)) (then (return (i32.const 1))))
      (local.set $alen (i32.sub (local.get $alen) (i32.const 1)))
      (br_if $next (i32.eq
        (i32.load8_u (i32.add (local.get $a) (local.get $alen)))
        (i32.load8_u (i32.add (local.get $b) (local.get $alen))))))
    (i32.const 0))

  ;; ask makes a host call and answers 1 with its reply. 0 means that the host's
  ;; error was handed on.
  (func $ask (param $operation i32) (param $olen i32) (param $payload i32) (param $plen i32) (result i32)
    (if (call $host_call
        (i32.const 86) (i32.const 4) (i32.const 90) (i32.const 4)
        (local.get $operation) (local.get $olen) (local.get $payload) (local.get $plen))
      (then
        (global.set $len (call $host_response_len))
        (global.set $at (call $alloc (global.get $len)))
        (call $host_response (global.get $at))
        (return (i32.const 1))))
    (global.set $len (call $host_error_len))
    (global.set $at (call $alloc (global.get $len)))
    (call $host_error (global.get $at))
    (call $guest_error (global.get $at) (global.get $len))
    (i32.const 0))

  ;; parse reads a decimal number, and answers whether it is one.
  (func $parse (param $at i32) (param $len i32) (result i64 i32)
    (local $end i32) (local $sign i32) (local $digit i32) (local $value i64)
    (local.set $end (i32.add (local.get $at) (local.get $len)))
    (if (local.get $len) (then
      (local.set $sign (i32.load8_u (local.get $at)))
      (if (i32.or (i32.eq (local.get $sign) (i32.const 0x2b)) (i32.eq (local.get $sign) (i32.const 0x2d)))
        (then (local.set $at (i32.add (local.get $at) (i32.const 1)))))))
    (if (i32.eq (local.get $at) (local.get $end)) (then (return (i64.const 0) (i32.const 0))))
    (loop $next
      (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 0x30)))
      (if (i32.or
          (i32.gt_u (local.get $digit) (i32.const 9))
          (i64.gt_u (local.get $value) (i64.const 900000000000000000)))
        (then (return (i64.const 0) (i32.const 0))))
      (local.set $value (i64.add (i64.mul (local.get $value) (i64.const 10)) (i64.extend_i32_u (local.get $digit))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
    (if (i32.eq (local.get $sign) (i32.const 0x2d))
      (then (local.set $value (i64.sub (i64.const 0) (local.get $value)))))
    (local.get $value) (i32.const 1))

  ;; format leaves a number in decimal digits in at and len.
  (func $format (param $value i64)
    (local $end i32) (local $at i32) (local $rest i64)
    (local.set $end (i32.add (call $alloc (i32.const 32)) (i32.const 32)))
    (local.set $at (local.get $end))
    (local.set $rest (local.get $value))
    (if (i64.lt_s (local.get $value) (i64.const 0))
      (then (local.set $rest (i64.sub (i64.const 0) (local.get $value)))))
    (loop $next
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 0x30) (i32.wrap_i64 (i64.rem_u (local.get $rest) (i64.const 10)))))
      (local.set $rest (i64.div_u (local.get $rest) (i64.const 10)))
      (br_if $next (i64.ne (local.get $rest) (i64.const 0))))
    (if (i64.lt_s (local.get $value) (i64.const 0)) (then
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at) (i32.const 0x2d))))
    (global.set $at (local.get $at))
    (global.set $len (i32.sub (local.get $end) (local.get $at))))

  ;; load answers the value, and whether the host gave it.
  (func $load (result i64 i32)
    (if (i32.eqz (call $ask (i32.const 64) (i32.const 6) (i32.const 85) (i32.const 1)))
      (then (return (i64.const 0) (i32.const 0))))
    (if (i32.eqz (i32.load8_u (global.get $at)))
      (then (return (i64.const 0) (i32.const 1))))
    (drop (call $parse
      (i32.add (global.get $at) (i32.const 1)) (i32.sub (global.get $len) (i32.const 1))))
    (i32.const 1))

  (func $answer (result i32)
    (call $guest_response (global.get $at) (global.get $len))
    (i32.const 1))

  (func $inc (param $payload i32) (param $len i32) (result i32)
    (local $amount i64) (local $sum i64) (local $ok i32) (local $put i32)
    (local.set $amount (i64.const 1))
    (if (local.get $len) (then
      (call $parse (local.get $payload) (local.get $len))
      (local.set $ok)
      (local.set $amount)
      (if (i32.eqz (local.get $ok)) (then
        (call $guest_error (i32.const 128) (i32.const 50))
        (return (i32.const 0))))))
    (call $load)
    (local.set $ok)
    (local.set $sum)
    (if (i32.eqz (local.get $ok)) (then (return (i32.const 0))))
    (local.set $sum (i64.add (local.get $sum) (local.get $amount)))
    (call $format (local.get $sum))
    (local.set $put (call $alloc (i32.add (global.get $len) (i32.const 2))))
    (i32.store16 (local.get $put) (i32.const 0x6e02)) ;; the key's length 1 as a zig-zag varint, and the key
    (memory.copy (i32.add (local.get $put) (i32.const 2)) (global.get $at) (global.get $len))
    (if (i32.eqz (call $ask (i32.const 70) (i32.const 6) (local.get $put) (i32.add (global.get $len) (i32.const 2))))
      (then (return (i32.const 0))))
    (call $format (local.get $sum))
    (call $answer))

  (func $get (result i32)
    (local $value i64) (local $ok i32)
    (call $load)
    (local.set $ok)
    (local.set $value)
    (if (i32.eqz (local.get $ok)) (then (return (i32.const 0))))
    (call $format (local.get $value))
    (call $answer))

  (func $reset (result i32)
    (local $value i64) (local $ok i32)
    (call $load)
    (local.set $ok)
    (local.set $value)
    (if (i32.eqz (local.get $ok)) (then (return (i32.const 0))))
    (if (i32.eqz (call $ask (i32.const 76) (i32.const 9) (i32.const 85) (i32.const 1)))
      (then (return (i32.const 0))))
    (call $format (local.get $value))
    (call $answer))

  ;; host makes the call that the payload says: a name, a zero byte, the request.
  (func $host (param $payload i32) (param $len i32) (result i32)
    (local $name i32) (local $request i32)
    (block $end
      (loop $next
        (br_if $end (i32.eq (local.get $name) (local.get $len)))
        (br_if $end (i32.eqz (i32.load8_u (i32.add (local.get $payload) (local.get $name)))))
        (local.set $name (i32.add (local.get $name) (i32.const 1)))
        (br $next)))
    (local.set $request (i32.add (local.get $name) (i32.lt_u (local.get $name) (local.get $len))))
    (if (i32.eqz (call $ask
        (local.get $payload) (local.get $name)
        (i32.add (local.get $payload) (local.get $request)) (i32.sub (local.get $len) (local.get $request))))
      (then (return (i32.const 0))))
    (call $answer))

  (func $unknown (param $operation i32) (param $len i32) (result i32)
    (local $text i32)
    (local.set $text (call $alloc (i32.add (local.get $len) (i32.const 26))))
    (memory.copy (local.get $text) (i32.const 192) (i32.const 25))
    (memory.copy (i32.add (local.get $text) (i32.const 25)) (local.get $operation) (local.get $len))
    (i32.store8 (i32.add (local.get $text) (i32.add (local.get $len) (i32.const 25))) (i32.const 0x22))
    (call $guest_error (local.get $text) (i32.add (local.get $len) (i32.const 26)))
    (i32.const 0))

  (func (export "__guest_call") (param $olen i32) (param $plen i32) (result i32)
    (local $operation i32) (local $payload i32)
    (global.set $top (global.get $arena))
    (local.set $operation (call $alloc (local.get $olen)))
    (local.set $payload (call $alloc (local.get $plen)))
    (call $guest_request (local.get $operation) (local.get $payload))
    (if (call $equal (local.get $operation) (local.get $olen) (i32.const 0) (i32.const 4)) (then
      (call $guest_response (local.get $payload) (local.get $plen))
      (return (i32.const 1))))
    (if (call $equal (local.get $operation) (local.get $olen) (i32.const 4) (i32.const 4))
      (then (return (i32.const 1))))
    (if (call $equal (local.get $operation) (local.get $olen) (i32.const 8) (i32.const 4)) (then
      (call $guest_error (i32.const 94) (i32.const 3))
      (return (i32.const 0))))
    (if (call $equal (local.get $operation) (local.get $olen) (i32.const 12) (i32.const 4))
      (then (return (call $host (local.get $payload) (local.get $plen)))))
    (if (call $equal (local.get $operation) (local.get $olen) (i32.const 16) (i32.const 3))
      (then (return (call $inc (local.get $payload) (local.get $plen)))))
    (if (call $equal (local.get $operation) (local.get $olen) (i32.const 19) (i32.const 3))
      (then (return (call $get))))
    (if (call $equal (local.get $operation) (local.get $olen) (i32.const 22) (i32.const 5))
      (then (return (call $reset))))
    (if (call $equal (local.get $operation) (local.get $olen) (i32.const 27) (i32.const 8)) (then
      (global.set $remembered (i64.add (global.get $remembered) (i64.const 1)))
      (call $format (global.get $remembered))
      (return (call $answer))))
    (call $unknown (local.get $operation) (local.get $olen))))
