// Long lines as columns: each the largest of its neighbours, so that a short event stays visible.

// The largest of every `step` rows of (rows, columns), flat.
export function largest(table, columns, step) {
  const rows = table.length / columns;
  const found = new Float32Array(Math.ceil(rows / step) * columns).fill(-Infinity);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const at = Math.floor(row / step) * columns + column;
      found[at] = Math.max(found[at], table[row * columns + column]);
    }
  }
  return found;
}

// Of points [second, value, beside] those with the largest value of every `step`.
export function largestBeside(points, step) {
  const found = [];
  for (let start = 0; start < points.length; start += step) {
    found.push(points.slice(start, start + step).reduce((best, one) => (one[1] > best[1] ? one : best)));
  }
  return found;
}
