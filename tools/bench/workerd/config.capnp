# Counters that survive a restart: each object has a file of its own on the disk
# named "state", and stays in memory once it is there.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "counters", worker = .counters),
    (name = "state", disk = (writable = true)),
  ],
  sockets = [(name = "http", http = (), service = "counters")],
);

const counters :Workerd.Worker = (
  compatibilityDate = "2026-01-01",
  modules = [(name = "counter.js", esModule = embed "counter.js")],
  durableObjectNamespaces = [(className = "Counter", uniqueKey = "counter", enableSql = true, preventEviction = true)],
  durableObjectStorage = (localDisk = "state"),
  bindings = [(name = "COUNTERS", durableObjectNamespace = "Counter")],
);
