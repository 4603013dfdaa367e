package cluster

import "errors"

// ErrMoved says that the row of a shard is not what it was.
var ErrMoved = errors.New("cluster: the shard has moved meanwhile")
