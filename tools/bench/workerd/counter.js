// The counter of our own rows as a Durable Object: POST /ID/inc adds one and
// answers the value once it is stored, POST /ID/get answers the value.
export class Counter {
  constructor(state) {
    this.state = state;
    state.blockConcurrencyWhile(async () => {
      this.value = (await state.storage.get("value")) ?? 0;
    });
  }

  fetch(request) {
    if (request.url.endsWith("/inc")) {
      // Not awaited: the reply is held back until the write is on disk.
      this.state.storage.put("value", ++this.value);
    }
    return new Response(String(this.value));
  }
}

export default {
  fetch(request, { COUNTERS }) {
    const path = new URL(request.url).pathname;
    if (path === "/") return new Response("ready");
    const object = COUNTERS.idFromName(path.slice(1, path.lastIndexOf("/")));
    return COUNTERS.get(object).fetch(request);
  },
};
