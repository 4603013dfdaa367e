// Package cluster starts several servers of ours on this machine that share a
// Cassandra, each as a process of its own: to try a cluster, to test one by
// killing its parts, and to measure one.
package cluster
