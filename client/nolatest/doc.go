// Package nolatest runs a NOLA server inside a test: the real one, with its
// store in memory, listening on a free loopback port.
//
//	func TestCounter(t *testing.T) {
//		s := nolatest.Start(t)
//		s.PushFile("counter", "counter.wasm")
//		got := s.Invoke("counter/alice", "inc", "")
//		...
//		s.Restart() // what was acknowledged is still there
//	}
//
// A server is up when [Start] returns, and is closed, with everything it
// started, when the test ends. Servers share nothing but a cache of compiled
// code, so that tests may run in parallel.
package nolatest
