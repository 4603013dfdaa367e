// Package containers tests the store on ScyllaDB and on Cassandra as others
// package them: it starts each in a container and has the tests of
// persistence/cqlstore run on it. It is a module of its own, as nothing else needs
// a Docker client.
package containers
