// Which classes an image shows best, by calibrated stacking: gamma is added to the scores of classes never trained.

const SHOWN = 8;

export function calibrated(answer, gamma) {
  return answer.scores.map((score, place) => score + (answer.classes[place].seen ? 0 : gamma));
}

// The best classes and those that are `kept`, best first, as {one, score, share, rank}. `share` is the length of a bar.
//
// A model may have a decision rule of its own; its label is of the chosen gamma, so it leads only there.
export function ranked(answer, gamma, chosen, kept) {
  const scores = calibrated(answer, gamma);
  const order = scores.map((_, place) => place).sort((a, b) => scores[b] - scores[a]);
  if (gamma === chosen) order.unshift(...order.splice(order.indexOf(answer.label), 1));
  const [least, most] = [Math.min(...scores), Math.max(...scores)];
  return order
    .map((place, rank) => ({
      one: answer.classes[place],
      score: scores[place],
      share: most > least ? (scores[place] - least) / (most - least) : 1,
      rank: rank + 1,
    }))
    .filter(({ one, rank }) => rank <= SHOWN || kept(one));
}
