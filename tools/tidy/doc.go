// Package tidy checks the repository with ordinary tests: who may import whom,
// that the pure packages are pure, that everything exported is documented, that
// no text speaks of the machine it was written on, and that documents point at
// what exists.
//
// Each check is a function from a tree of files to a list of problems. One test
// runs it over the repository, another over small made-up trees in which the
// problem exists, so that a check that can no longer fail is noticed. A problem
// names file and line, and says why the rule exists. Checks apply to what is
// there: a package that does not exist yet breaks no rule.
//
// Looked at are the files that git tracks or would track, so that a new file is
// checked before it is committed and build output is not.
package tidy
