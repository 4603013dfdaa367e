// Package cassandra runs a real Cassandra on this machine, for tests and for
// trying things out: one node or three, on 127.0.0.1 to 127.0.0.3, from the
// Maven artifacts of one pinned version and a Java 17.
//
// A cluster lives in one directory: the data, configuration and log of each
// node, and cluster.json, which says what runs there. Only loopback addresses
// are listened on. The commit log is synced before a write is acknowledged
// (commitlog_sync: batch), and conditional writes take the second form of Paxos,
// so what is measured and tested here is the safe configuration.
//
// Clients need no login and no encryption, unless Config.Secure asks for both.
//
// The artifacts are taken from the local Maven repository, where they lie after
// the first start; then neither Maven nor a network is needed. Each file is
// checked against artifacts.sum before every start.
//
// The nodes of a cluster end with the process that started it, however that
// ends, unless the cluster is detached. The program in cmd starts and stops
// detached ones.
package cassandra
