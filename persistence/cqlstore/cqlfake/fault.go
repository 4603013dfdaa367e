package cqlfake

import (
	"github.com/datastax/go-cassandra-native-protocol/message"
	"github.com/datastax/go-cassandra-native-protocol/primitive"
)

// Request is what a client asked for, as [Server.Inject] sees it: reads and
// writes of tables that are not the server's own.
type Request struct {
	Number      int      // of the request at this server, from 1
	Statements  []string // one, or those of a batch
	Consistency string   // as CQL writes it: LOCAL_QUORUM
	Serial      string   // of the condition; empty if the client named none
	Timestamp   bool     // whether the client gave one beside the statements
	Conditional bool
	Read        bool
	Batch       bool
	// Values are what each statement was given, as the protocol has them; nil in
	// what [Server.Requests] answers.
	Values [][][]byte
}

// Fault is what becomes of a request.
type Fault uint8

// The faults. In each name, first stands whether the request is executed, then
// what the client hears.
const (
	None                Fault = iota
	LostThenDropped           // not executed; the connection ends
	DoneThenDropped           // executed; the connection ends
	LostThenTimeout           // not executed, answered as timed out
	DoneThenTimeout           // executed, answered as timed out
	LateThenTimeout           // answered as timed out; executed by the next Release
	LateThenSilence           // executed, and answered, by the next Release
	DoneThenSilence           // executed; answered by the next Release
	Unavailable               // not executed: too few replicas are alive
	DoneThenUnavailable       // executed, although answered so
	Overloaded                // not executed
	DoneThenDenied            // a condition that held, answered as if it had been asked again afterwards
	Forgotten                 // not executed: the server has lost what was prepared, once
	Refused                   // not executed, and never will be: the request is invalid
)

// Executed reports whether a request with this fault is executed at once.
func (f Fault) Executed() bool {
	switch f {
	case None, DoneThenDropped, DoneThenTimeout, DoneThenSilence, DoneThenUnavailable, DoneThenDenied:
		return true
	}
	return false
}

// timeout answers a request that takes too long for its replicas.
func (r Request) timeout(consistency primitive.ConsistencyLevel) message.Message {
	if r.Read {
		return &message.ReadTimeout{ErrorMessage: "Operation timed out - received only 0 responses.", Consistency: consistency, BlockFor: 1}
	}
	kind := primitive.WriteTypeSimple
	switch {
	case r.Conditional:
		kind = primitive.WriteTypeCas
	case r.Batch:
		kind = primitive.WriteTypeUnloggedBatch
	}
	return &message.WriteTimeout{ErrorMessage: "Operation timed out - received only 0 responses.", Consistency: consistency, BlockFor: 1, WriteType: kind}
}
