// Package faultstore wraps a store whose commits go wrong on demand, for tests
// of whoever commits. Every fault is one that an engine may show: an error whose
// outcome is unknown, time passing, a newer owner.
package faultstore
