// Package powercut is a disk for tests whose power can be cut before any
// operation that writes.
package powercut
