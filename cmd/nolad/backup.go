package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/nolaproject/nola/persistence/pebblestore"
)

// storeMarker is the file that every store on disk has.
const storeMarker = "NOLA-STORE"

func backupCommand() *cobra.Command {
	var dataDir string
	c := &cobra.Command{
		Use:   "backup DIR",
		Short: "Copy the store of a stopped server into a new directory",
		Long: `Copy the store of a stopped server into a new directory.

The copy is consistent and shares files with the store where the file system
allows it, so it is quick. "nolad restore" makes a store of it. While a server works
on the store, use "nolactl backup create".`,
		Example: `nolad backup --data-dir /var/lib/nola /backup/nola-monday
nolad backup ./nola-backup`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			// Opening would make a store where there is none.
			if _, err := os.Stat(filepath.Join(dataDir, storeMarker)); err != nil {
				return fmt.Errorf("no store to back up in %s: %w", dataDir, err)
			}
			store, err := pebblestore.Open(dataDir, pebblestore.Options{})
			if errors.Is(err, pebblestore.ErrInUse) {
				return fmt.Errorf("%w; a server that runs is backed up with `nolactl backup create`", err)
			}
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, store.Close()) }()
			if err := store.Backup(cmd.Context(), args[0]); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "backed up %s to %s\nrestore it with: nolad restore %s --data-dir NEWDIR\n", dataDir, args[0], args[0])
			return err
		},
	}
	c.Flags().StringVar(&dataDir, "data-dir", dataDirDefault, "directory of the store")
	return c
}

func restoreCommand() *cobra.Command {
	var dataDir string
	c := &cobra.Command{
		Use:   "restore BACKUP",
		Short: "Make a store of a backup",
		Long: `Make a store of a backup, in a directory that is empty or does not exist.

Every epoch is raised, so that no server that still works on the old store can
commit to the new one. What was done since the backup is not in it.`,
		Example: `nolad restore /backup/nola-monday --data-dir /var/lib/nola
nolad restore ./nola-backup --data-dir ./restored`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := pebblestore.Restore(args[0], dataDir, pebblestore.Options{}); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "restored %s to %s\nstart it with: nolad dev --data-dir %s, or nolad serve\n", args[0], dataDir, dataDir)
			return err
		},
	}
	c.Flags().StringVar(&dataDir, "data-dir", dataDirDefault, "directory of the new store")
	return c
}

// errFindings ends a doctor that has told what it found.
var errFindings = errors.New("the store has faults; restore a backup into a new directory, or ask for help with the lines above")

func doctorCommand() *cobra.Command {
	var dataDir string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Read the whole store of a stopped server and tell what is wrong",
		Long: `Read the whole store of a stopped server and tell what is wrong. It changes
nothing. It ends with 1 if there is a fault.`,
		Example: `nolad doctor --data-dir /var/lib/nola
nolad doctor`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := pebblestore.Check(cmd.Context(), dataDir, pebblestore.Options{})
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "store\t%s\ncluster\t%s\nshards\t%d\n\nTABLE\tROWS\tBYTES\n", dataDir, hex.EncodeToString(report.Cluster.ID[:]), report.Cluster.Shards)
			for _, t := range report.Tables {
				fmt.Fprintf(w, "%s\t%d\t%d\n", t.Name, t.Rows, t.Bytes)
			}
			for _, f := range report.Findings {
				fmt.Fprintf(w, "\nFAULT\t%s\nkey\t%x\n\t%s\n", f.Table, f.Key, f.What)
			}
			if more := report.Count - len(report.Findings); more > 0 {
				fmt.Fprintf(w, "\nand %d more\n", more)
			}
			if report.Count == 0 {
				fmt.Fprintf(w, "\nno faults\n")
			}
			if err := w.Flush(); err != nil {
				return err
			}
			if report.Count > 0 {
				return errFindings
			}
			return nil
		},
	}
	c.Flags().StringVar(&dataDir, "data-dir", dataDirDefault, "directory of the store")
	return c
}
