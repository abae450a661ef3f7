//! Places the nodes of a neighbourhood in columns, one column for each distance from the token.
//!
//! Users are joined to tokens only, so the two ends of an edge always are in neighbouring columns.

/// Up to this number of nodes, each node has room for a label.
const LABELLED_NODES: usize = 40;
/// Passes that sort the columns. More passes removed no crossing in the graphs that we tried.
const PASSES: usize = 4;
const MARGIN: usize = 14;

/// A node's centre, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Point {
    pub(crate) x: usize,
    pub(crate) y: usize,
}

/// A drawing: its size in pixels, and a point for each node.
#[derive(Debug, PartialEq)]
pub(crate) struct Layout {
    pub(crate) labelled: bool,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) points: Vec<Point>,
}

/// Places nodes of the given `depths`. An edge is a pair of indexes into `depths`.
///
/// The same graph always gets the same layout. In a column, each node is near the mean height of the nodes that it is
/// joined to, so that few edges cross.
pub(crate) fn layout(depths: &[usize], edges: &[(usize, usize)]) -> Layout {
    let labelled = depths.len() <= LABELLED_NODES;
    // Without labels, a column has four nodes beside each other: fewer would make a tall drawing.
    let (row, abreast, column) = if labelled { (28, 1, 196) } else { (4, 4, 200) };
    let mut columns = vec![Vec::new(); depths.iter().max().map_or(1, |deepest| deepest + 1)];
    let mut joined = vec![Vec::new(); depths.len()];
    for (node, &depth) in depths.iter().enumerate() {
        columns[depth].push(node);
    }
    for &(one, other) in edges {
        joined[one].push(other);
        joined[other].push(one);
    }

    // Heights are relative (0 to 1), so that short columns are spread over the height of the longest.
    let mut heights = vec![0.0; depths.len()];
    spread(&columns, &mut heights);
    for pass in 0..PASSES {
        for step in 0..columns.len() {
            let depth = if pass % 2 == 0 { step } else { columns.len() - 1 - step };
            let mean = |node: &usize| {
                let (sum, count) = joined[*node]
                    .iter()
                    .filter(|other| (depths[**other] < depth) == (pass % 2 == 0))
                    .fold((0.0, 0.0), |(sum, count), &other| (sum + heights[other], count + 1.0));
                if count > 0.0 { sum / count } else { heights[*node] }
            };
            let mut order: Vec<_> = columns[depth].iter().map(|node| (mean(node), *node)).collect();
            order.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
            columns[depth] = order.into_iter().map(|(_, node)| node).collect();
            spread(&columns[depth..=depth], &mut heights);
        }
    }

    let longest = columns.iter().map(Vec::len).max().unwrap_or(1);
    let height = longest * row + 2 * MARGIN;
    let mut points = vec![Point::default(); depths.len()];
    for (depth, nodes) in columns.iter().enumerate() {
        for (place, &node) in nodes.iter().enumerate() {
            points[node] = Point {
                x: MARGIN + depth * column + place % abreast * 18,
                y: MARGIN + (2 * place + 1) * longest * row / (2 * nodes.len()),
            };
        }
    }
    Layout {
        labelled,
        width: columns.len() * column - column + if labelled { 190 } else { 96 },
        height,
        points,
    }
}

fn spread(columns: &[Vec<usize>], heights: &mut [f64]) {
    for nodes in columns {
        let mut height = 0.5;
        for &node in nodes {
            #[expect(clippy::cast_precision_loss, reason = "a column has at most 200 nodes")]
            let count = nodes.len() as f64;
            heights[node] = height / count;
            height += 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_node_has_a_place() {
        let layout = layout(&[0], &[]);

        assert_eq!(layout.points, [Point { x: 14, y: 28 }]);
        assert_eq!((layout.width, layout.height, layout.labelled), (190, 56, true));
    }

    #[test]
    fn labels_never_overlap() {
        let depths: Vec<usize> = (0..40).map(|node| if node == 0 { 0 } else { 1 + node % 3 }).collect();
        let edges: Vec<_> = (1..40).map(|node| (node, (node * 7) % node.max(1))).collect();

        let layout = layout(&depths, &edges);

        for (node, one) in layout.points.iter().enumerate() {
            for other in &layout.points[..node] {
                assert!(one.x != other.x || one.y.abs_diff(other.y) >= 28, "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn parallel_chains_do_not_cross() {
        let depths = [0, 1, 1, 1, 2, 2, 2];
        let edges = [(0, 1), (0, 2), (0, 3), (1, 6), (2, 5), (3, 4)];

        let layout = layout(&depths, &edges);

        for (user, token) in [(1, 6), (2, 5), (3, 4)] {
            assert_eq!(layout.points[user].y, layout.points[token].y);
        }
    }

    #[test]
    fn large_graph_is_compact() {
        let depths: Vec<usize> = (0..200).map(|node| usize::from(node > 0)).collect();

        let layout = layout(&depths, &[]);

        assert!(!layout.labelled);
        assert_eq!(layout.height, 199 * 4 + 28);
        for (node, one) in layout.points.iter().enumerate().skip(1) {
            for other in &layout.points[1..node] {
                assert!(one.x != other.x || one.y.abs_diff(other.y) >= 15, "{one:?} {other:?}");
            }
        }
    }
}
