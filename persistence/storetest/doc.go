// Package storetest is the conformance suite of persistence.Store: what every
// engine must do, run by the tests of each.
package storetest
