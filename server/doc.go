// Package server is a node as clients see it: it accepts requests, checks them,
// has the shards do the work and reports.
//
// [New] wires the API over a store, a runtime and a shard manager that the
// caller has opened; [Server.Handler] serves the Connect services, the plain
// HTTP gateway and the health checks on one port, [Server.AdminHandler] what is
// for operators alone.
//
// Invariants: every request is validated before any work; every error that
// leaves is a Connect error with a reason (errors.go is the only place that
// knows Connect codes); reads answer committed state.
package server
