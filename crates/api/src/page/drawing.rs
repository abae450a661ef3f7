//! Draws the tokens and users around a token.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::layout::layout;
use super::text;
use crate::parameters::Field;
use crate::queries::neighbours::Graph;

/// Edges that a drawing shows. More would be a grey area.
const MAX_EDGES: usize = 400;
/// Columns of a label.
const LABEL: usize = 17;
/// Names in the column `Joined to`.
const MAX_NAMES: usize = 3;

/// The nodes around a token, nearest first. An edge is a pair of indexes of nodes.
pub(super) struct Neighbourhood {
    nodes: Vec<Node>,
    edges: Vec<(usize, usize)>,
    truncated: bool,
}

/// A token or a user.
#[derive(Clone)]
pub(super) struct Node {
    /// The masked field of a token. None for a user.
    pub(super) field: Option<Field>,
    /// The token, or the user's id.
    pub(super) id: String,
    pub(super) depth: usize,
    /// The users of a token. None for a user.
    pub(super) users: Option<i64>,
    pub(super) hub: bool,
}

/// The part of a neighbourhood that the page draws.
pub(super) struct Drawing {
    pub(super) labelled: bool,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) nodes: Vec<DrawnNode>,
    pub(super) edges: usize,
    /// The edges, as an SVG path.
    pub(super) path: String,
    /// Whether nodes or edges are left out.
    pub(super) truncated: bool,
}

pub(super) struct DrawnNode {
    pub(super) node: Node,
    pub(super) label: String,
    /// Some of the nodes that it is joined to, and the number of the others.
    pub(super) joined: Vec<String>,
    pub(super) more: usize,
    pub(super) x: usize,
    pub(super) y: usize,
}

impl Neighbourhood {
    pub(super) fn new(graph: &Graph) -> Self {
        let tokens = graph.tokens.iter().map(|token| Node {
            field: Some(token.field),
            id: token.token.to_string(),
            depth: usize::try_from(token.depth).unwrap_or(0),
            users: Some(token.users),
            hub: token.hub,
        });
        let users = graph.users.iter().map(|user| Node {
            field: None,
            id: user.user_id.clone(),
            depth: usize::try_from(user.depth).unwrap_or(1),
            users: None,
            hub: false,
        });
        let mut nodes: Vec<_> = tokens.chain(users).collect();
        nodes.sort_by_key(|node| node.depth);
        let places: HashMap<_, _> = nodes
            .iter()
            .enumerate()
            .map(|(place, node)| ((node.is_user(), node.id.as_str()), place))
            .collect();
        let edges = graph.edges.iter().filter_map(|edge| {
            Some((*places.get(&(false, edge.token.as_str()))?, *places.get(&(true, edge.user_id.as_str()))?))
        });
        let edges = edges.collect();
        Self { nodes, edges, truncated: graph.truncated }
    }

    /// Draws the nearest nodes, at most `count`.
    pub(super) fn draw(&self, count: usize) -> Drawing {
        let nodes = &self.nodes[..count.min(self.nodes.len())];
        let mut edges = self.edges.clone();
        edges.retain(|(one, other)| *one < nodes.len() && *other < nodes.len());
        edges.truncate(MAX_EDGES);
        let truncated = self.truncated || nodes.len() < self.nodes.len() || edges.len() < self.edges.len();

        let depths: Vec<_> = nodes.iter().map(|node| node.depth).collect();
        let layout = layout(&depths, &edges);
        let labels: Vec<_> = nodes.iter().map(Node::label).collect();
        let mut path = String::new();
        let mut joined = vec![Vec::new(); nodes.len()];
        for &(token, user) in &edges {
            // From the nearer node to the farther node.
            let (one, other) = if depths[token] < depths[user] { (token, user) } else { (user, token) };
            let (from, to) = (layout.points[one], layout.points[other]);
            let _ = if layout.labelled {
                // An edge that begins behind the label does not cross it.
                let start = from.x + 18 + 8 * text::columns(&labels[one]);
                let middle = start.midpoint(to.x);
                write!(path, "M{start} {}C{middle} {} {middle} {} {} {}", from.y, from.y, to.y, to.x, to.y)
            } else {
                write!(path, "M{} {}L{} {}", from.x, from.y, to.x, to.y)
            };
            joined[one].push(labels[other].clone());
            joined[other].push(labels[one].clone());
        }
        let drawn = nodes.iter().zip(&labels).zip(joined).zip(&layout.points);
        let drawn = drawn.map(|(((node, label), mut joined), point)| {
            let more = joined.len().saturating_sub(MAX_NAMES);
            joined.truncate(MAX_NAMES);
            DrawnNode { node: node.clone(), label: label.clone(), joined, more, x: point.x, y: point.y }
        });
        Drawing {
            labelled: layout.labelled,
            width: layout.width,
            height: layout.height,
            nodes: drawn.collect(),
            edges: edges.len(),
            path,
            truncated,
        }
    }
}

impl Node {
    pub(super) fn is_user(&self) -> bool {
        self.field.is_none()
    }

    pub(super) fn kind(&self) -> &'static str {
        self.field.map_or("User", text::kind)
    }

    /// Names the symbol in the template.
    pub(super) fn symbol(&self) -> &'static str {
        match (self.field, self.hub) {
            (Some(Field::DeviceId), false) => "device",
            (Some(Field::DeviceId), true) => "device_hub",
            (Some(Field::Ip), false) => "address",
            (Some(Field::Ip), true) => "address_hub",
            (None, _) => "person",
        }
    }

    fn label(&self) -> String {
        if self.is_user() { text::label(&self.id, LABEL) } else { text::shorten(&self.id) }
    }
}
