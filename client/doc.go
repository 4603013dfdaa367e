// Package client speaks to a NOLA server.
//
// [New] makes a [Client], which holds a generated client for each service, and
// [Client.Invoke] and [Client.Cast], which are what most programs need. Those
// two give every call a session key, so that the actor recognises a retry and
// no call runs twice; and they retry what has a chance, for as long as their
// context allows.
//
// Every error is a *nola.Error or wraps one: branch on its Reason. A call of
// which no attempt can have run ends with the server's own reason. A call of
// which one may have run, and whose outcome could not be learned, ends with
// OUTCOME_UNKNOWN: ask GetInvocation with the key that the error's metadata
// holds.
//
// A Client may be used by many goroutines at once.
package client
