// The conformance guest in C, without a library: what is to answer what stands
// in ../README.md. Being small and quick, it is also what most measurements run.
typedef unsigned int u32;
typedef unsigned char u8;
typedef long long i64;
typedef unsigned long long u64;

#define IMPORT(name) __attribute__((import_module("wapc"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name)))

IMPORT(__guest_request) void guest_request(void *operation, void *payload);
IMPORT(__guest_response) void guest_response(const void *p, u32 n);
IMPORT(__guest_error) void guest_error(const void *p, u32 n);
IMPORT(__host_call)
u32 host_call(const void *binding, u32, const void *ns, u32, const void *operation, u32, const void *payload, u32);
IMPORT(__host_response_len) u32 host_response_len(void);
IMPORT(__host_response) void host_response(void *p);
IMPORT(__host_error_len) u32 host_error_len(void);
IMPORT(__host_error) void host_error(void *p);

// Memory is an arena that begins anew with each call.
extern u8 __heap_base;
static u8 *top;

static u8 *alloc(u32 n) {
  u8 *p = top;
  u32 end = (u32)p + ((n + 15) & ~15u), have = __builtin_wasm_memory_size(0) << 16;
  if (end < (u32)p) __builtin_trap();
  if (end > have && __builtin_wasm_memory_grow(0, (end - have + 65535) >> 16) == (__SIZE_TYPE__)-1) __builtin_trap();
  top = (u8 *)end;
  return p;
}

static int equal(const u8 *a, u32 n, const char *b) {
  u32 i = 0;
  for (; i < n; i++)
    if (!b[i] || a[i] != (u8)b[i]) return 0;
  return b[n] == 0;
}

static u32 length(const char *s) {
  u32 n = 0;
  while (s[n]) n++;
  return n;
}

static u32 fail(const char *text) {
  guest_error(text, length(text));
  return 0;
}

struct bytes {
  u8 *at;
  u32 n;
};

// ask_bytes makes a host call; 0 means the host's error was handed on.
static int ask_bytes(const void *operation, u32 operation_len, const u8 *payload, u32 n, struct bytes *reply) {
  if (!host_call("wapc", 4, "nola", 4, operation, operation_len, payload, n)) {
    u32 size = host_error_len();
    u8 *text = alloc(size);
    host_error(text);
    guest_error(text, size);
    return 0;
  }
  reply->n = host_response_len();
  reply->at = alloc(reply->n);
  host_response(reply->at);
  return 1;
}

static int ask(const char *operation, const u8 *payload, u32 n, struct bytes *reply) {
  return ask_bytes(operation, length(operation), payload, n, reply);
}

// parse reads a decimal number; 0 means it is none.
static int parse(const u8 *p, u32 n, i64 *value) {
  u32 i = 0, negative = n && p[0] == '-';
  u64 v = 0;
  for (i = negative || (n && p[0] == '+'); i < n; i++) {
    if (p[i] < '0' || p[i] > '9' || v > 900000000000000000ull) return 0;
    v = v * 10 + (p[i] - '0');
  }
  *value = negative ? -(i64)v : (i64)v;
  return n > (u32)(negative || p[0] == '+');
}

static struct bytes format(i64 value) {
  struct bytes b = {alloc(32), 0};
  u8 digits[24];
  u32 n = 0;
  u64 v = value < 0 ? -(u64)value : (u64)value;
  do digits[n++] = '0' + v % 10;
  while (v /= 10);
  if (value < 0) b.at[b.n++] = '-';
  while (n) b.at[b.n++] = digits[--n];
  return b;
}

static int load(i64 *value) {
  struct bytes reply;
  *value = 0;
  if (!ask("KV-GET", (const u8 *)"n", 1, &reply)) return 0;
  if (reply.n > 1 && reply.at[0] == 1) parse(reply.at + 1, reply.n - 1, value);
  return 1;
}

static u32 answer(struct bytes b) {
  guest_response(b.at, b.n);
  return 1;
}

static u32 inc(const u8 *payload, u32 n) {
  i64 amount = 1, value;
  if (n && !parse(payload, n, &amount)) return fail("inc: the payload must be empty or a decimal number");
  if (!load(&value)) return 0;
  struct bytes text = format(value + amount), reply;
  u8 *put = alloc(text.n + 2);
  put[0] = 2; // the length 1 of the key as a zig-zag varint
  put[1] = 'n';
  for (u32 i = 0; i < text.n; i++) put[2 + i] = text.at[i];
  if (!ask("KV-PUT", put, text.n + 2, &reply)) return 0;
  return answer(text);
}

static u32 remember(void) {
  static i64 remembered;
  return answer(format(++remembered));
}

static u32 reset(void) {
  i64 value;
  struct bytes reply;
  if (!load(&value) || !ask("KV-DELETE", (const u8 *)"n", 1, &reply)) return 0;
  return answer(format(value));
}

EXPORT(__guest_call) u32 guest_call(u32 operation_len, u32 payload_len) {
  top = &__heap_base;
  u8 *operation = alloc(operation_len), *payload = alloc(payload_len);
  guest_request(operation, payload);
  struct bytes reply = {payload, payload_len};
  if (equal(operation, operation_len, "noop")) return 1;
  if (equal(operation, operation_len, "echo")) return answer(reply);
  if (equal(operation, operation_len, "inc")) return inc(payload, payload_len);
  if (equal(operation, operation_len, "get")) {
    i64 value;
    return load(&value) ? answer(format(value)) : 0;
  }
  if (equal(operation, operation_len, "reset")) return reset();
  if (equal(operation, operation_len, "remember")) return remember();
  if (equal(operation, operation_len, "nope")) return fail("No!");
  if (equal(operation, operation_len, "host")) {
    u32 name = 0;
    while (name < payload_len && payload[name]) name++;
    u32 request = name < payload_len ? name + 1 : name;
    return ask_bytes(payload, name, payload + request, payload_len - request, &reply) ? answer(reply) : 0;
  }

  static const char head[] = "Could not find function \"";
  u32 n = sizeof head - 1;
  u8 *text = alloc(n + operation_len + 1);
  for (u32 i = 0; i < n; i++) text[i] = head[i];
  for (u32 i = 0; i < operation_len; i++) text[n + i] = operation[i];
  text[n + operation_len] = '"';
  guest_error(text, n + operation_len + 1);
  return 0;
}
