// Nolad is the server: durable actors and durable schedules in one process.
//
// It picks the parts (a store, a runtime for guests) and wires them; what they
// do is said in their packages. A process goes through these states: starting
// (listening, nothing answered), ready, draining (after a first SIGINT or
// SIGTERM: nothing new is taken in, what was admitted ends and is made
// durable), ended. A second signal ends it at once; what was acknowledged is
// durable then, too.
//
// Exit codes: 0 ended as asked, 1 failure, 2 wrong usage or configuration.
package main
