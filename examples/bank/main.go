//go:build wasip1

// Bank keeps one account in each actor and moves money between them.
package main

import (
	"fmt"

	"github.com/nolaproject/nola/guest"
)

// The key under which the balance is kept, in cents.
const balanceKey = "balance"

func init() {
	guest.Register("deposit", deposit)
	guest.Register("withdraw", withdraw)
	guest.Register("balance", balance)
	guest.Register("transfer", guest.JSON(transfer))
	guest.Register("credit", deposit) // the other half of a transfer
}

func main() {}

// deposit adds the amount in the payload and answers the balance.
func deposit(c *guest.Context) ([]byte, error) {
	amount, err := c.PayloadInt(0)
	if err != nil {
		return nil, err
	}
	return book(c, amount, amount)
}

// withdraw takes the amount in the payload and answers the balance.
func withdraw(c *guest.Context) ([]byte, error) {
	amount, err := c.PayloadInt(0)
	if err != nil {
		return nil, err
	}
	return book(c, amount, -amount)
}

// balance answers the balance.
func balance(c *guest.Context) ([]byte, error) {
	cents, err := c.Int(balanceKey)
	return guest.Text(cents), err
}

// Transfer is the payload of transfer.
type Transfer struct {
	To     string `json:"to"`
	Amount int64  `json:"amount"`
}

// Receipt is what transfer answers.
type Receipt struct {
	Balance int64  `json:"balance"`
	Credit  string `json:"credit"` // the invocation that credits the other account
}

// transfer takes the amount from this account and casts it to the other one.
// Both the debit and the cast are in the commit of this turn, and a cast takes
// effect exactly once, so that no crash can make or lose money. Until the cast
// has arrived the money is under way.
func transfer(c *guest.Context, t Transfer) (Receipt, error) {
	if t.To == "" {
		return Receipt{}, guest.Error("transfer: \"to\" is empty, want the id of an account")
	}
	if _, err := book(c, t.Amount, -t.Amount); err != nil {
		return Receipt{}, err
	}
	credit, err := c.Cast(guest.Actor{ID: t.To}, "credit", guest.Text(t.Amount))
	if err != nil {
		return Receipt{}, err
	}
	left, err := c.Int(balanceKey)
	return Receipt{Balance: left, Credit: credit}, err
}

// book changes the balance and answers it. The amount must be above 0, the
// balance never falls below.
func book(c *guest.Context, amount, change int64) ([]byte, error) {
	if amount <= 0 {
		return nil, fmt.Errorf("%s: the amount is %d, want a number of cents above 0", c.Operation, amount)
	}
	cents, err := c.AddInt(balanceKey, change)
	if err != nil {
		return nil, err
	}
	if cents < 0 {
		// An error drops what the turn did, the new balance included.
		return nil, fmt.Errorf("%s: the balance is %d, %d are wanted", c.Operation, cents-change, amount)
	}
	return guest.Text(cents), nil
}
