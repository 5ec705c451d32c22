#!/bin/sh
# A reward for kac in shell: reads a count and so many objects, answers a line of numbers for each
# (docs/workers.md).  This one counts G and C; put your own program in its place.
while read -r count; do
    while [ "$count" -gt 0 ] && read -r object; do
        score=$(printf '%s' "$object" | tr -cd GC | wc -c)
        printf '%s\n' "$score"
        count=$((count - 1))
    done
done
