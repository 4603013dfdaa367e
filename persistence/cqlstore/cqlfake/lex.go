package cqlfake

import (
	"fmt"
	"strings"
)

// tokenKind is what a token of CQL is.
type tokenKind uint8

const (
	tokenEnd    tokenKind = iota
	tokenWord             // a keyword or a name, in lower case unless it was quoted
	tokenNumber           // with its sign
	tokenText             // a string, without its quotes
	tokenBlob             // 0x…, without these two characters
	tokenMark             // punctuation and operators
)

type token struct {
	kind tokenKind
	text string
	at   int
}

// lex cuts a statement into tokens.
func lex(source string) ([]token, error) {
	var all []token
	for i := 0; i < len(source); {
		c, from := source[i], i
		next := func(in func(byte) bool) string {
			for i < len(source) && in(source[i]) {
				i++
			}
			return source[from:i]
		}
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case strings.HasPrefix(source[i:], "--"):
			next(func(c byte) bool { return c != '\n' })
			continue
		case strings.HasPrefix(source[i:], "0x"):
			i += 2
			all = append(all, token{tokenBlob, next(isHex)[2:], from})
		case isDigit(c) || c == '-' && i+1 < len(source) && isDigit(source[i+1]):
			i++
			all = append(all, token{tokenNumber, next(func(c byte) bool { return isDigit(c) || c == '.' }), from})
		case isLetter(c):
			all = append(all, token{tokenWord, strings.ToLower(next(func(c byte) bool { return isLetter(c) || isDigit(c) })), from})
		case c == '\'' || c == '"':
			text, end, ok := quoted(source[i:], c)
			if !ok {
				return nil, fmt.Errorf("a quote at %d has no end", from)
			}
			kind := tokenText
			if c == '"' {
				kind = tokenWord
			}
			all = append(all, token{kind, text, from})
			i += end
		default:
			i++
			if i < len(source) && (c == '<' || c == '>' || c == '!') && source[i] == '=' {
				i++
			}
			all = append(all, token{tokenMark, source[from:i], from})
		}
	}
	return append(all, token{tokenEnd, "", len(source)}), nil
}

// quoted reads a text in quotes, in which a doubled quote stands for one, and
// answers where it ends.
func quoted(source string, quote byte) (text string, end int, ok bool) {
	var b strings.Builder
	for i := 1; i < len(source); i++ {
		switch {
		case source[i] != quote:
			b.WriteByte(source[i])
		case i+1 < len(source) && source[i+1] == quote:
			b.WriteByte(quote)
			i++
		default:
			return b.String(), i + 1, true
		}
	}
	return "", 0, false
}

func isDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }
func isHex(c byte) bool {
	return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
