// Package child starts the programs that tests, measurements and local clusters
// need beside themselves, and sees to it that none is left.
package child
