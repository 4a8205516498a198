package storconcli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// single is a flag with one value. Two different values are an error, so that none is
// silently dropped. The same value twice is not: completion parses everything twice.
type single[T any] struct {
	name  string
	into  *T
	parse func(string) (T, error)
	given bool
	text  string // as given, or the default
}

var errRepeated = errors.New("cannot be used multiple times")

func value[T any](name string, into *T, parse func(string) (T, error)) *single[T] {
	return &single[T]{name: name, into: into, parse: parse}
}

func (v *single[T]) Set(s string) error {
	if v.given && s != v.text {
		return errRepeated
	}
	parsed, err := v.parse(s)
	if err != nil {
		return err
	}
	*v.into, v.given, v.text = parsed, true, s
	return nil
}

func (v *single[T]) String() string { return v.text }

// Type returns the placeholder in the help.
func (v *single[T]) Type() string { return placeholder(v.name) }

// several is a flag that may be given many times. Each time it has one value, or several
// between commas.
type several[T any] struct {
	name  string
	into  *[]T
	parse func(string) (T, error)
}

func values[T any](name string, into *[]T, parse func(string) (T, error)) pflag.Value {
	return &several[T]{name: name, into: into, parse: parse}
}

func (v *several[T]) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		parsed, err := v.parse(part)
		if err != nil {
			return err
		}
		*v.into = append(*v.into, parsed)
	}
	return nil
}

func (v *several[T]) String() string { return "" }

func (v *several[T]) Type() string { return placeholder(v.name) }

func placeholder(name string) string {
	return "<" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + ">"
}

// spelled returns the name of a flag in messages: `--node-id <NODE_ID>`.
func spelled(f *pflag.Flag) string {
	if f.NoOptDefVal != "" {
		return "--" + f.Name
	}
	return "--" + f.Name + " " + f.Value.Type()
}

// need adds a flag that must be given.
func need[T any](
	cmd *cobra.Command, name string, into *T, parse func(string) (T, error), help string,
) {
	needVar(cmd, name, value(name, into, parse), help)
}

func needVar(cmd *cobra.Command, name string, v pflag.Value, help string) {
	cmd.Flags().Var(v, name, help)
	if err := cmd.MarkFlagRequired(name); err != nil {
		panic(err) // it was added in the line before
	}
}

// may adds a flag that need not be given. Its default is the value that into points to.
func may[T any](
	cmd *cobra.Command, name string, into *T, parse func(string) (T, error), help string,
) {
	add(cmd.Flags(), name, into, parse, help)
}

func add[T any](
	flags *pflag.FlagSet, name string, into *T, parse func(string) (T, error), help string,
) {
	v := value(name, into, parse)
	if text := fmt.Sprint(*into); text != "<nil>" {
		v.text = text
	}
	flags.Var(v, name, help)
}

// optional makes a parser of pointers. They are nil when nothing is given.
func optional[T any](parse func(string) (T, error)) func(string) (*T, error) {
	return func(s string) (*T, error) {
		parsed, err := parse(s)
		if err != nil {
			return nil, err
		}
		return &parsed, nil
	}
}

// requiredFlags are those that need has added.
func requiredFlags(cmd *cobra.Command) (all []*pflag.Flag) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Annotations[cobra.BashCompOneRequiredFlag] != nil {
			all = append(all, f)
		}
	})
	return all
}

// complete makes the shell offer the words as values of the flag.
func complete(cmd *cobra.Command, flag string, words ...string) {
	offer := cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
	if err := cmd.RegisterFlagCompletionFunc(flag, offer); err != nil {
		panic(err) // the flag does not exist
	}
}

// flagError says what is wrong with a flag.
func flagError(err error) error {
	var invalid *pflag.InvalidValueError
	var valueless *pflag.ValueRequiredError
	var unknown *pflag.NotExistError
	switch {
	case errors.Is(err, errRepeated) && errors.As(err, &invalid):
		return usagef("the argument '%s' cannot be used multiple times", spelled(invalid.GetFlag()))
	case errors.As(err, &invalid):
		return usagef("invalid value '%s' for '%s': %v", invalid.GetValue(),
			spelled(invalid.GetFlag()), invalid.Unwrap())
	case errors.As(err, &valueless):
		return usagef("a value is required for '%s' but none was supplied",
			spelled(valueless.GetFlag()))
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		return usagef("unexpected argument '-%s' found", unknown.GetSpecifiedShortnames())
	case errors.As(err, &unknown):
		return usagef("unexpected argument '--%s' found", unknown.GetSpecifiedName())
	}
	return usagef("%v", err)
}
