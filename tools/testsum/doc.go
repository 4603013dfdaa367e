// Command testsum reads what `go test -json` prints and says what a person wants
// to know of it.
//
//	go test -json ./... | testsum -o results.json   one line per package, all of a failure; keeps the input
//	testsum -total results.json ...                 one line: 812 passed, 0 failed, 3 skipped
//
// Every test and subtest counts as one. A package that fails without a failed
// test, because it does not build, panics or runs out of time, counts as one
// failure, so that a total without failures means that everything ran. Both forms
// exit with status 1 when something failed, and with 2 when the input cannot be read.
package main
