// Command storage_controller runs one replica of the storage controller, alone or
// as a member of a cluster.
package main

import (
	"os"

	"quorate/internal/storagecontroller"
)

func main() { os.Exit(storagecontroller.Run(os.Args[1:], storagecontroller.Seams{})) }
