package main

import (
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	nolav1 "github.com/nolaproject/nola/proto/nola/v1"
)

// backupTimeoutDefault is how long a backup may take: it is quick where it can
// share files with the store, and a copy of everything where it cannot.
const backupTimeoutDefault = 30 * time.Minute

func (c *cli) backupCommand() *cobra.Command {
	cmd := c.group("backup", "Copy the store of a running server",
		`A backup is a consistent copy of the store in a directory on the server's machine,
made while the server works. Everything that was acknowledged before the command is
in it. "nolad restore" makes a store of it. Old ones are removed there, by hand.`,
		`nolactl backup create
nolactl backup list`)
	create := leaf("create [NAME]", "Back up the store of a running server",
		`Back up the store into a new directory on the server's machine, below that of
backup_dir in its configuration. Without a name it is called after the time. It
prints where the backup lies; copy it to another machine from there.`,
		`nolactl backup create
nolactl backup create before-upgrade -o json`,
		func(cmd *cobra.Command, args []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			if !c.timed {
				c.timeout = backupTimeoutDefault
			}
			req := &nolav1.CreateBackupRequest{}
			if name := optional(args, 0); name != nil {
				req.Name = *name
			}
			res, err := ask(cmd.Context(), c.timeout, r.Cluster.CreateBackup, req)
			if err != nil {
				return err
			}
			b := res.GetBackup()
			return c.say(res, b.GetName(), "backup %s, %s, in %s on the server's machine; make a store of it there with: nolad restore %s --data-dir NEWDIR",
				b.GetName(), bytesOf(b.GetBytes()), b.GetDirectory(), quote(b.GetDirectory()))
		})
	create.ValidArgsFunction = cobra.NoFileCompletions
	var limit int
	list := leaf("list", "List the backups on the server's machine", `List the complete backups in the server's directory for backups.`,
		`nolactl backup list
nolactl backup list -o name`,
		func(cmd *cobra.Command, _ []string) error {
			r, err := c.dial(nil)
			if err != nil {
				return err
			}
			return listing[*nolav1.Backup]{
				what: "backups",
				head: []string{"NAME", "CREATED", "SIZE", "DIRECTORY"},
				row: func(b *nolav1.Backup) []string {
					return []string{b.Name, c.when(b.Created), bytesOf(b.Bytes), b.Directory}
				},
				name: func(b *nolav1.Backup) string { return b.Name },
				wrap: func(all []*nolav1.Backup) proto.Message { return &nolav1.ListBackupsResponse{Backups: all} },
				fetch: func(size int32, token string) ([]*nolav1.Backup, string, error) {
					req := &nolav1.ListBackupsRequest{PageSize: size, PageToken: token}
					res, err := ask(cmd.Context(), c.timeout, r.Cluster.ListBackups, req)
					return res.GetBackups(), res.GetNextPageToken(), err
				},
			}.print(c, limit)
		})
	list.Flags().IntVar(&limit, "limit", limitDefault, "show at most so many; 0 shows all")
	cmd.AddCommand(create, list)
	return cmd
}
