// Command build makes the artifacts of a release from HEAD of a repository. It may not
// know what they are.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"quorate/internal/release"
)

func main() {
	repo := flag.String("repository", "../..", "`directory` of the repository")
	out := flag.String("out", "", "`directory` of the artifacts, which is replaced")
	flag.Parse()
	if err := build(context.Background(), *repo, *out); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func build(ctx context.Context, repo, out string) error {
	if out == "" {
		return fmt.Errorf("--out is needed")
	}
	dir, err := os.MkdirTemp("", "quorate-release")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	source, err := release.Checkout(ctx, repo, filepath.Join(dir, "source"))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	if err := source.Make(ctx, out); err != nil {
		return err
	}
	fmt.Printf("%s of commit %s is in %s\n", source.Version, source.Commit, out)
	return nil
}
