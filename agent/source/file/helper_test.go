package file

import "fmt"

func asText(v any) string { return fmt.Sprint(v) }
